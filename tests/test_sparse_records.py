"""Figure notebooks and stories with few records or none: they draw what is there, or say so."""

import os
import shutil
import subprocess
import sys

import pytest
from house import TOP

pytestmark = pytest.mark.slow

# executes notebooks in the working folder; prints a line for each that fails
EXECUTE = """
import sys
from pathlib import Path
from zeroinit.figures.style import NothingToDraw
from zeroinit.sweep.notebooks import execute_here

done = 0
for path in map(Path, sys.argv[1:]):
    try:
        execute_here(path.read_text(), Path("executed") / path.name, {})
        done += 1
    except NothingToDraw as error:
        # it says how to get records
        assert "zeroinit run" in str(error) or "make bench" in str(error), error
        assert path.name.startswith("fig_"), path
    except Exception as error:
        print(f"{path.name}: {type(error).__name__}: {error}")
print(done, "executed")
"""


def copy_records(paths, folder):
    """Copy records, named by their path below results/, into a folder of results."""
    for path in paths:
        target = folder / path.relative_to(TOP / "results")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def records_of_suite(name):
    """The committed records of a suite."""
    from zeroinit.experiments.records import results_path
    from zeroinit.experiments.suites import SUITES

    runs = [(experiment, seed) for experiment, seeds in SUITES[name]() for seed in seeds]
    paths = [results_path(TOP / "results", experiment, seed) for experiment, seed in runs]
    return [p for p in paths if p.exists()]


@pytest.fixture
def checkout(tmp_path, tree):
    """A folder that is a checkout to the library, with the notebooks and with no records."""
    shutil.copy(tree / "settings.ini", tmp_path)
    shutil.copytree(tree / "nbs", tmp_path / "nbs")
    (tmp_path / "results").mkdir()
    return tmp_path


@pytest.fixture
def execute(checkout, tree):
    """Execute all figure notebooks and stories in the checkout; returns the lines printed."""

    def run():
        notebooks = sorted(checkout.glob("nbs/figures/fig_*.ipynb"))
        notebooks += sorted(checkout.glob("nbs/stories/*.ipynb"))
        notebooks.append(checkout / "nbs/index.ipynb")
        done = subprocess.run(
            [sys.executable, "-c", EXECUTE, *map(str, notebooks)],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    return run


def test_no_records(execute):
    *failures, last = execute()
    assert failures == []
    assert int(last.split()[0]) > 5  # stories and what trains by itself


def test_one_record(checkout, execute):
    (first, *_) = records_of_suite("unseen-mnist")
    copy_records([first], checkout / "results")
    *failures, _ = execute()
    assert failures == []


@pytest.mark.parametrize("suite", ["mixed-fnn", "update-order", "reduced-cifar", "schicho-flaws"])
def test_records_of_one_suite(suite, checkout, execute):
    paths = records_of_suite(suite)
    assert len(paths) > 4
    copy_records(paths, checkout / "results")
    *failures, _ = execute()
    assert failures == []


def test_records_of_the_demo(call, checkout, execute):
    results = checkout / "results"
    call("zeroinit", "run", "demo", "--no-notebook", "--results-root", results, timeout=900)
    *failures, _ = execute()
    assert failures == []
