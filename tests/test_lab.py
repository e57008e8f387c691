"""Notebooks in JupyterLab, in a real browser, as `make lab` opens them.

`python tests/lab.py` runs all notebooks this way, which takes half an hour.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import lab
import pytest
from browser import open_chromium

pytest.importorskip("playwright", reason="Playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not lab.CHROMIUM, reason="there is no Chromium here to open JupyterLab in"),
]

QUICK = ["index", "run_experiment", "figures/fig_zero", "basics/03_tables"]
# nothing listens there: as without a network
NO_NETWORK = dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
)
BAD_CELLS = {
    "a warning": "import warnings\nwarnings.warn('beware')",
    "a path": "import sys\nprint(sys.prefix)",
    "an error": "1/0",
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """JupyterLab in a copy without records, data and network.

    The folder of its notebooks, and a function that runs a notebook there, given its name.
    """
    folder = tmp_path_factory.mktemp("bare")
    tree = lab.copy_checkout(folder)
    shutil.rmtree(tree / "results")
    env = {
        **NO_NETWORK,
        "no_proxy": "127.0.0.1,localhost",
        "NO_PROXY": "127.0.0.1,localhost",
        "ZEROINIT_DATA": str(folder / "empty"),
        "OMP_NUM_THREADS": "1",
    }
    nbs = tree / "nbs"
    with lab.server(tree, folder, env) as address, open_chromium() as chrome:

        def run(name):
            path = nbs / f"{name}.ipynb"
            return lab.run_in_page(chrome, address, tree, path, folder, limit=180)

        yield nbs, run


def record_paths():
    return {p for p in lab.TOP.rglob("*.json") if {"results", "runs"} & set(p.parts)}


def test_notebooks_run_and_are_photographed(tmp_path):
    before = record_paths()
    options = ["--out", str(tmp_path), "--limit", "240"]
    done = subprocess.run(
        [sys.executable, str(Path(lab.__file__)), *options, *QUICK],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    print(done.stdout)  # names, seconds, and whether one stood still
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()[:-1]
    assert [line.split()[0] for line in lines] == QUICK
    assert all("  ok" in line for line in lines)
    for name in QUICK:
        assert Path(f"{lab.screenshot_path(tmp_path, name)}-1.png").stat().st_size > 20_000
    assert record_paths() == before


def test_missing_data_names_the_command_that_downloads_it(bare):
    nbs, run = bare
    lab.set_parameters(nbs / "run_experiment.ipynb", 'dataset = "mnist"')
    problem = run("run_experiment").problems[0]
    assert problem.startswith("Refused: mnist is not in ")
    assert "load('mnist')\"` downloads it" in problem
    assert "put mnist.npz there" in problem
    assert not (nbs.parent.parent / "empty").exists()


def test_missing_records_name_the_command_that_makes_them(bare):
    _, run = bare
    command = "`zeroinit run schicho-mnist` makes them"
    expected = f"NothingToDraw: there are no records for this figure; {command}"
    assert run("figures/fig_zero").problems == [expected]


def test_bad_outputs_are_found(bare):
    from nbformat.v4 import new_code_cell, new_notebook, writes

    nbs, run = bare
    spec = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    cells = [new_code_cell(source) for source in BAD_CELLS.values()]
    (nbs / "figures/bad.ipynb").write_text(writes(new_notebook(cells=cells, metadata=spec)))
    outcome = run("figures/bad")
    assert outcome.name == "figures/bad"
    assert outcome.warnings == 1
    assert outcome.problems[0] == "ZeroDivisionError: division by zero"
    assert any(p.startswith("stderr: ") and "beware" in p for p in outcome.problems)
    assert any(p.startswith("a path of this machine: ") for p in outcome.problems)


def test_make_lab_opens_it_as_here():
    assert f"jupyter lab {lab.OPENS[0]}" in (lab.TOP / "Makefile").read_text()
