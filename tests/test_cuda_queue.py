"""The queue for a CUDA machine, docs/cuda.sh, rehearsed without one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_a_step_that_does_not_exist():
    done = dry_run("x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no step x; choose from: a b c d e f g" in done.stderr
