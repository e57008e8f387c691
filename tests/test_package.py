"""What is installed: a wheel that works outside the tree, and an import as cheap as torch's."""

import os
import re
import subprocess
import sys

import nbformat
import papermill
import pytest
from house import MODULES, TOP


def run_python(code, folder):
    """Run Python in a folder, with what is installed and nothing of ours on the path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_from_sdist_works_outside_the_tree(tree, call, tmp_path):
    # an sdist first, then the wheel from it
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", tree]
    call(*build)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    call(sys.executable, "-m", "zipfile", "-e", wheel, tmp_path / "site")
    modules = [".".join(p.relative_to(TOP).with_suffix("").parts) for p in MODULES]
    modules = [m for m in modules if not m.endswith(("__init__", "__main__"))]
    code = f"""
import importlib
import zeroinit
assert zeroinit.__file__.startswith({str(tmp_path)!r}), zeroinit.__file__
for name in {modules}:
    importlib.import_module(name)
from zeroinit.experiments.frames import published
from zeroinit.experiments.records import environment
from zeroinit.publish.explorer import explorer_page
assert "There are no records" in explorer_page("nowhere")
assert len(published()) > 20 and environment("cpu")["git"] is None
print(*zeroinit.schemes())
"""
    environment = {"PYTHONPATH": str(tmp_path / "site")}
    done = call(sys.executable, "-c", code, cwd=tmp_path, env=environment)
    assert done.stdout.split()[:2] == ["default", "zero"]
    (metadata,) = (tmp_path / "site").glob("*.dist-info")
    assert "zeroinit = zeroinit.publish.cli:main" in (metadata / "entry_points.txt").read_text()


HEAVY = ("torch", "torchvision", "pandas", "seaborn", "matplotlib", "sklearn", "scipy", "papermill")


def test_import_loads_nothing_heavy(call):
    code = f"""
import sys
import zeroinit, zeroinit.sweep.papermill_output
loaded = set({HEAVY}) & set(sys.modules)
assert not loaded, loaded
"""
    call(sys.executable, "-c", code)


def test_library_loads_little_beside_torch(call):
    code = f"""
import sys
import torch
before = set(sys.modules)
from zeroinit import initialize
from zeroinit.data import load
from zeroinit.diagnostics import probes
from zeroinit.models import build
from zeroinit.training import fit
loaded = set({HEAVY[1:]}) & (set(sys.modules) - before)
assert not loaded, loaded
"""
    call(sys.executable, "-c", code)


def test_doors_of_the_packages(call):
    """The names that the documentation promises, where it promises them."""
    code = """
from zeroinit import build, diagnose, fit, initialize, load, read, run, schemes
from zeroinit.data import load as load_there
from zeroinit.diagnostics import diagnose as diagnose_there
from zeroinit.experiments import read as read_there, run as run_there
from zeroinit.models import build as build_there
from zeroinit.schemes import initialize as initialize_there
from zeroinit.training import fit as fit_there
assert (load, diagnose, read, run) == (load_there, diagnose_there, read_there, run_there)
assert (build, initialize, fit) == (build_there, initialize_there, fit_there)
import zeroinit, zeroinit.schemes.zero
assert len(zeroinit.schemes()) == len(schemes()) > 30
"""
    call(sys.executable, "-c", code)


@pytest.fixture
def folder_above(tmp_path):
    """A folder in which another folder has the library's name, as the one above a clone."""
    (tmp_path / "zeroinit/nbs").mkdir(parents=True)
    return tmp_path


def test_import_from_the_folder_above_a_clone(folder_above):
    """A folder named zeroinit in the working folder is not taken for the package."""
    for folder in (folder_above, folder_above / "zeroinit", folder_above / "zeroinit/nbs"):
        done = run_python("from zeroinit import schemes; print(len(schemes()))", folder)
        assert done.returncode == 0 and int(done.stdout) > 30, done.stderr


def test_import_in_a_notebook_above_a_clone(folder_above):
    cell = nbformat.v4.new_code_cell("from zeroinit import schemes\nlen(schemes()) > 30")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = folder_above / "mine.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), notebook)
    executed = papermill.execute_notebook(
        str(notebook), str(notebook), cwd=str(folder_above), progress_bar=False
    )
    assert executed.cells[0].outputs[0].data["text/plain"] == "True"


def test_unknown_attribute(tmp_path):
    done = run_python("import zeroinit; zeroinit.initialise", tmp_path)
    assert "module 'zeroinit' has no attribute 'initialise'" in done.stderr


def test_every_package_is_pinned_and_hashed():
    """All but the three of which PyTorch's own index has other files than PyPI."""
    text = (TOP / "constraints.txt").read_text().replace("\\\n", "")
    without = set()
    for line in text.splitlines():
        name = re.match(r"([\w.-]+)==\S", line)[1]
        if not re.search(r" --hash=sha256:[0-9a-f]{64}\b", line):
            without.add(name)
    assert without == {"torch", "torchvision", "triton"}
