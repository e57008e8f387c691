"""Every notebook runs, as nbdev runs it, and opens in Colab."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zeroinit.publish.colab import COLAB_CELL, COLAB_METADATA

NBS = Path(__file__).resolve().parent.parent / "nbs"
NOTEBOOKS = sorted(p.relative_to(NBS).as_posix() for p in NBS.rglob("*.ipynb"))


def read_cells(name, kind):
    cells = json.loads((NBS / name).read_text())["cells"]
    return [c for c in cells if c["cell_type"] == kind]


def sources(name, kind):
    return ["".join(c["source"]) for c in read_cells(name, kind)]


PACKAGES = sorted({n.partition("/")[0] for n in NOTEBOOKS if n.rpartition("/")[2][0].isdigit()})
# the experiment notebook and the benchmark have tests of their own: they train for long
AT_THE_TOP = ("explore", "index", "lesson", "schemes")


@pytest.fixture
def nbdev_test(call):
    """Run notebooks one after the other in one process, which imports torch only once."""

    def run(path, glob="*.ipynb"):
        arguments = ["--path", path, "--file_glob", glob, "--n_workers", "0", "--do_print"]
        environment = {"OMP_NUM_THREADS": "1", "ZEROINIT_DATA": "/no-such-folder"}
        done = call("nbdev_test", *arguments, env=environment, timeout=900)
        assert "Success." in done.stdout
        return done.stdout

    return run


@pytest.mark.parametrize("package", PACKAGES)
def test_library_notebooks(package, nbdev_test):
    """Every notebook of a package runs, as nbdev runs it."""
    output = nbdev_test(f"nbs/{package}", "[0-9]*.ipynb")
    notebooks = [n.rpartition("/")[2] for n in NOTEBOOKS if n.startswith(f"{package}/")]
    assert [n for n in notebooks if n[0].isdigit() and n not in output] == []


@pytest.mark.slow
@pytest.mark.parametrize("glob", ["nbs/figures/fig_*.ipynb", "nbs/stories/*.ipynb"])
def test_figures_and_stories(glob, nbdev_test):
    folder, _, names = glob.rpartition("/")
    nbdev_test(folder, names)


@pytest.mark.slow
@pytest.mark.parametrize("name", AT_THE_TOP)
def test_notebook_at_the_top(name, nbdev_test):
    nbdev_test(f"nbs/{name}.ipynb")


def test_every_notebook_opens_in_colab():
    """Each has a badge that leads to it, and the folded cell that installs, as in the template."""
    for name in NOTEBOOKS:
        code = read_cells(name, "code")
        cell = next(c for c in code if not "".join(c["source"]).startswith("#| default_exp"))
        advice = f"{name}: `make prepare` inserts the present Colab cell"
        assert "".join(cell["source"]) == COLAB_CELL, advice
        assert {k: cell["metadata"].get(k) for k in COLAB_METADATA} == COLAB_METADATA, advice
    badge = "https://colab.research.google.com/github/zeroinit/zeroinit/blob/main/nbs/"
    assert [
        n
        for n in NOTEBOOKS
        if n != "index.ipynb" and f"({badge}{n})" not in sources(n, "markdown")[0]
    ] == []
    assert f"({badge}lesson.ipynb)" in (NBS.parent / "README.md").read_text()


IN_COLAB = "import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')\n"


@pytest.fixture
def first_cell(tmp_path):
    """Run Python in an empty folder where git and pip only write down their arguments."""

    def run(code, **stands_in):
        for name, text in (
            dict(git='mkdir -p zeroinit/nbs; echo git "$@" >> told', pip='echo pip "$@" >> told')
            | stands_in
        ).items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("colab", [True, False])
def test_first_cell(tmp_path, first_cell, colab):
    """In Colab it clones, installs and changes the folder, once; elsewhere it does nothing."""
    cell = sources("lesson.ipynb", "code")[0]
    done = first_cell(f"{IN_COLAB if colab else ''}{cell}\n{cell}\nprint(os.getcwd())")
    *before, where = done.stdout.splitlines()
    assert before == ["installing zeroinit, about a minute"] * colab and done.returncode == 0
    told = (tmp_path / "told").read_text().splitlines() if colab else []
    assert (
        Path(where) == (tmp_path / "zeroinit/nbs" if colab else tmp_path)
        and (tmp_path / "told").exists() == colab
    )
    if colab:
        assert told == [
            "git clone -q --depth 1 https://github.com/zeroinit/zeroinit",
            "pip install -q ./zeroinit[notebooks]",
        ]


def test_first_cell_stops_where_it_fails(tmp_path, first_cell):
    """A clone or an install that fails ends the cell, which can be run again."""
    cell = sources("lesson.ipynb", "code")[0]
    done = first_cell(IN_COLAB + cell, git="echo no such host >&2; exit 128")
    assert (
        done.returncode == 1
        and "CalledProcessError" in done.stderr
        and "no such host" in done.stderr
        and not (tmp_path / "told").exists()
    )
    done = first_cell(IN_COLAB + cell, pip="echo no space left >&2; exit 1")
    assert (
        done.returncode == 1
        and "CalledProcessError" in done.stderr
        and "no space left" in done.stderr
    )
    done = first_cell(
        f"{IN_COLAB}{cell}\nprint(os.getcwd())", git="exit 128"
    )  # the clone is there already
    assert done.returncode == 0 and Path(done.stdout.splitlines()[-1]) == tmp_path / "zeroinit/nbs"
