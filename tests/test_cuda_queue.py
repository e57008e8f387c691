"""The queue for a CUDA machine, docs/cuda.sh, rehearsed without one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zeroinit.experiments.resolve import resolve

TOP = Path(__file__).resolve().parent.parent
SCRIPT = TOP / "docs/cuda.sh"


def dry_run(*steps):
    """What steps of the queue would run; every suite and every selection must exist."""
    env = os.environ | dict(DRY="1", PYTHON=sys.executable)
    command = ["bash", str(SCRIPT), *steps]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def printed():
    done = dry_run()
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_steps_are_in_order(printed):
    assert re.findall(r"^== step (\w)$", printed, re.M) == list("abcdefg")


@pytest.mark.slow
def test_what_no_suite_lists_can_be_resolved(printed):
    lines = [line.split()[1:] for line in printed.splitlines() if line.startswith("alone ")]
    assert len(lines) == 7
    hashes = set()
    for line in lines:
        settings = dict(pair.split("=") for pair in line)
        assert int(settings.pop("seeds")) > 0
        hashes.add(resolve(**settings).hash)
    assert len(hashes) == len(lines)


def test_a_run_that_no_suite_lists(tmp_path):
    """Its program, with a smaller run on the CPU."""
    (program,) = re.findall(r"<<'END'\n(.*?)^END", SCRIPT.read_text(), re.S | re.M)
    settings = ["model=cnn", "dataset=digits", "epochs=1", "train_size=64", "both_modes=true"]
    done = subprocess.run(
        [sys.executable, "-", *settings, "seeds=2", "device=cpu"],
        cwd=tmp_path,
        env=os.environ | dict(PYTHONPATH=str(TOP), OMP_NUM_THREADS="1"),
        input=program,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("runs/digits/cnn/*/seed[01].json"))) == 2


def test_a_step_that_does_not_exist():
    done = dry_run("x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no step x; choose from: a b c d e f g" in done.stderr
