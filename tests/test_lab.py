"""Notebooks in JupyterLab, in a real browser, as `make lab` opens them; `python tests/lab.py` runs all of them, which takes half an hour."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import lab
import pytest

pytest.importorskip("playwright", reason="Playwright is not installed")
pytestmark = pytest.mark.skipif(
    not lab.CHROMIUM, reason="there is no Chromium here to open JupyterLab in"
)

QUICK = ["index", "run_experiment", "fig_zero", "basics/03_tables"]
PROXIES = dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
)  # nobody listens there: a cut cable
UNSOUND = {
    "a warning": "import warnings\nwarnings.warn('beware')",
    "a path": "import sys\nprint(sys.prefix)",
    "an error": "1/0",
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """JupyterLab in a copy without records, without data and without a network, and a browser: opens a notebook, given its name."""
    folder = tmp_path_factory.mktemp("bare")
    tree = lab.copied(folder)
    shutil.rmtree(tree / "results")
    env = {
        **PROXIES,
        "no_proxy": "127.0.0.1,localhost",
        "NO_PROXY": "127.0.0.1,localhost",
        "ZEROINIT_DATA": str(folder / "empty"),
        "OMP_NUM_THREADS": "1",
    }
    with lab.server(tree, folder, env) as address, lab.browser() as chrome:
        yield (
            tree / "nbs",
            lambda name: lab.visit(
                chrome, address, tree, tree / f"nbs/{name}.ipynb", folder, limit=180
            ),
        )


def test_notebooks_run_and_are_photographed(tmp_path):
    before = {p for p in lab.TOP.rglob("*.json") if "results" in p.parts}
    args = [
        sys.executable,
        str(Path(lab.__file__)),
        "--out",
        str(tmp_path),
        "--limit",
        "240",
        *QUICK,
    ]
    done = subprocess.run(
        args,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    print(done.stdout)  # names, seconds, and whether one stood still
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == QUICK and all(
        "  ok" in line for line in lines[:-1]
    )
    assert all((tmp_path / f"{name}-1.png").stat().st_size > 20_000 for name in QUICK)
    assert {p for p in lab.TOP.rglob("*.json") if "results" in p.parts} == before


def test_missing_data_names_the_command_that_brings_it(bare):
    nbs, opened = bare
    lab.parametrize(nbs / "run_experiment.ipynb", 'dataset = "mnist"')
    told = opened("run_experiment").problems[0]
    assert (
        told.startswith("Refused: mnist is not in ")
        and "load('mnist')\"` brings it" in told
        and "put mnist.npz there" in told
    )
    assert not (nbs.parent.parent / "empty").exists()


def test_missing_records_name_the_command_that_makes_them(bare):
    told = bare[1]("fig_zero").problems
    assert told == [
        "NothingToDraw: there are no records for this figure; `zeroinit run schicho-mnist` makes them"
    ]


def test_what_is_unsound_is_found(bare):
    from nbformat.v4 import new_code_cell, new_notebook, writes

    spec = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    (bare[0] / "unsound.ipynb").write_text(
        writes(new_notebook(cells=[new_code_cell(s) for s in UNSOUND.values()], metadata=spec))
    )
    found = bare[1]("unsound")
    assert found.warnings == 1 and found.problems[0] == "ZeroDivisionError: division by zero"
    assert any(p.startswith("stderr: ") and "beware" in p for p in found.problems) and any(
        p.startswith("a path of this machine: ") for p in found.problems
    )


def test_make_lab_opens_it_as_here():
    assert f"jupyter lab {lab.OPENS[0]}" in (lab.TOP / "Makefile").read_text()
