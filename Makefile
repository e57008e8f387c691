# `make demo` and `make test` need Python 3.10 or later and nothing else; all they install goes
# into .venv
PYTHON ?= python3
BIN := .venv/bin
RUN = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)
WORKERS ?= auto
# torch from PyTorch's own index, which has it without CUDA libraries for a machine without a GPU;
# if that index cannot be reached or lacks the version, torch comes from the index of all other
# packages
UV_TORCH_BACKEND ?= auto
INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
	--constraint constraints.txt --build-constraint constraints.txt --editable '.[dev]'
NEEDS_PYTHON = zeroinit needs Python 3.10 or later; say which with: make PYTHON=python3.12
CUDA_FOLDERS = .venv/lib/python*/site-packages/nvidia .venv/lib/python*/site-packages/triton
PYTEST = $(RUN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 15

.PHONY: dev demo test test-all bench prepare lab docs report constraints clean

dev: .venv/.installed

.venv/.installed: settings.ini setup.py setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo "$(NEEDS_PYTHON) $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(INSTALL) --torch-backend $(UV_TORCH_BACKEND) 2>/dev/null || $(INSTALL)
	@size=$$(du -cm $(CUDA_FOLDERS) 2>/dev/null | tail -n 1 | cut -f 1); \
	if [ "$${size:-0}" -gt 500 ]; then \
		echo "$$size MB of .venv are CUDA libraries, which this build of torch requires" \
			"with or without a GPU"; \
	fi
	@touch $@

demo: dev
	$(BIN)/zeroinit run demo --results-root demo/results
	$(BIN)/zeroinit report --results-root demo/results --suite demo --out demo
	@echo "figures: demo/images"

test: dev
	$(PYTEST) -m "not slow"

# also kills, Ray, the zoo, a browser, the site, the tutorials, every figure and story
test-all: test
	$(PYTEST) -m slow

bench: dev # minutes; leave the machine alone meanwhile; with a CUDA GPU, the table of its epochs
	@mkdir -p .runs
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then $(BIN)/python -m zeroinit.publish.gpu; \
	else $(BIN)/papermill nbs/benchmark.ipynb .runs/benchmark.ipynb -p quick False; fi

# before a commit: library notebooks without outputs, Colab cells as their template, all laid out
# and clean, the library exported, and the table of compared schemes
prepare: dev
	$(RUN)/jupyter nbconvert --log-level ERROR --clear-output --inplace \
		nbs/*/[0-9]*.ipynb nbs/run_experiment.ipynb nbs/benchmark.ipynb
	$(BIN)/python -c 'from zeroinit.publish.colab import refresh_colab_cells; refresh_colab_cells()'
	$(BIN)/ruff format -q nbs tests docs zeroinit setup.py
	$(RUN)/nbdev_clean
	$(RUN)/nbdev_export
	$(BIN)/python -c 'from zeroinit.experiments import suites; suites.write_compared_schemes()'

# JupyterLab refuses to run as root, as in a container, unless it is told that this is meant
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)
lab: dev
	$(RUN)/jupyter lab --LabApp.default_url=/lab/tree/nbs $(AS_ROOT)

docs: dev # the site, in _docs/html
	$(BIN)/python -c 'from zeroinit.publish.site import write_pages; write_pages("_docs")'
	$(BIN)/sphinx-build -W --keep-going -q -b html _docs/source _docs/html
	@echo "the site: _docs/html/index.html"

report: dev
	$(RUN)/zeroinit report

# the newest versions that fit together, for every Python from 3.10 on, with the hashes of their
# files, which uv compares for what it installs; these three have none, since PyTorch's own index
# has other files of the same version than PyPI, and others for each kind of GPU
WITHOUT_HASHES = torch|torchvision|triton
constraints:
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --upgrade \
		--generate-hashes --no-annotate --no-header --quiet --output-file constraints.txt
	awk '/^($(WITHOUT_HASHES))==/ {sub(/ *\\$$/, ""); print; bare = 1; next} \
		!/^ / {bare = 0} !bare' constraints.txt > constraints.tmp
	mv constraints.tmp constraints.txt

clean:
	rm -rf .venv .runs _docs demo build dist *.egg-info
