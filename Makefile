# `make demo` and `make test` need Python 3.10 or later and nothing else; all they install goes into .venv
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= auto

.PHONY: dev demo test test-all bench prepare lab docs report constraints clean

dev: .venv/.installed

.venv/.installed: settings.ini setup.py setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "zeroinit needs Python 3.10 or later; say which with: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: dev
	$(BIN)/zeroinit run demo --results-root demo/results
	$(BIN)/zeroinit report --results-root demo/results --suite demo --out demo
	@echo "figures: demo/images"

test: dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 15 -m "not slow"

test-all: test # also kills, Ray, the zoo, a browser, the site, the tutorials, every figure and story
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 15 -m slow

bench: dev # minutes; leave the machine alone meanwhile
	mkdir -p .runs
	$(BIN)/papermill nbs/benchmark.ipynb .runs/benchmark.ipynb -p quick False

# before a commit: library notebooks without outputs, Colab cells as their template, all laid out
# and clean, the library exported, and the table of compared schemes
prepare: dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter nbconvert --log-level ERROR --clear-output --inplace nbs/*/[0-9]*.ipynb nbs/run_experiment.ipynb nbs/benchmark.ipynb
	$(BIN)/python -c 'from zeroinit.publish.colab import refresh_colab_cells; refresh_colab_cells()'
	$(BIN)/ruff format -q nbs tests docs zeroinit setup.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nbdev_clean
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nbdev_export
	$(BIN)/python -c 'from zeroinit.experiments.suites import write_compared_schemes; write_compared_schemes()'

lab: dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter lab --LabApp.default_url=/lab/tree/nbs

docs: dev # the site, in _docs/html
	$(BIN)/python -c 'from zeroinit.publish.site import write_pages; write_pages("_docs")'
	$(BIN)/sphinx-build -W --keep-going -q -b html _docs/source _docs/html
	@echo "the site: _docs/html/index.html"

report: dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/zeroinit report

constraints: # the newest versions that fit together, for every Python from 3.10 on
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --upgrade --no-annotate --no-header --output-file constraints.txt

clean:
	rm -rf .venv .runs _docs demo build dist *.egg-info
