"""Every notebook runs, as nbdev runs it, and opens in Colab; the experiment and the benchmark notebook have tests of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zeroinit.publish.colab import COLAB_CELL

NBS = Path(__file__).resolve().parent.parent / "nbs"
NOTEBOOKS = sorted(p.relative_to(NBS).as_posix() for p in NBS.rglob("*.ipynb"))


def sources(name, kind):
    return [
        "".join(c["source"])
        for c in json.loads((NBS / name).read_text())["cells"]
        if c["cell_type"] == kind
    ]


@pytest.mark.parametrize(
    "name", [n for n in NOTEBOOKS if n not in ("run_experiment.ipynb", "benchmark.ipynb")]
)
def test_notebook(name, call):
    done = call(
        "nbdev_test",
        "--path",
        f"nbs/{name}",
        "--n_workers",
        "0",
        env={"OMP_NUM_THREADS": "1", "ZEROINIT_DATA": "/no-such-folder"},
    )
    assert "Success." in done.stdout


def test_every_notebook_opens_in_colab():
    """A badge that leads to the notebook itself, and the cell that installs, as its template has it."""
    for name in NOTEBOOKS:
        cells = [c for c in sources(name, "code") if not c.startswith("#| default_exp")]
        assert cells[0] == COLAB_CELL, f"{name}: `make prepare` inserts the present Colab cell"
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
    """Run Python in an empty folder where git and pip are stand-ins that write down what they are told."""

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
        )

    return run


@pytest.mark.parametrize("colab", [True, False])
def test_first_cell(tmp_path, first_cell, colab):
    """In Colab it clones, installs and goes to the notebooks, once, and says so; elsewhere it does nothing."""
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
    """A clone or an install that fails is an error there, with its own words; the cell can be run again."""
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
