"""The queue for a CUDA machine, docs/cuda.sh, rehearsed without one."""

import os
import re
import shutil
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


# in place of Python: writes a record, and succeeds if it is packed before the step ends
IMPATIENT = """#!/usr/bin/env bash
echo 1 >results/record.json
for _ in $(seq 200); do
    tar tzf "$OUT/results.tar.gz" 2>/dev/null | grep -q record.json && exit 0
    sleep 0.1
done
exit 1
"""


def test_records_are_packed_while_a_step_runs(tmp_path):
    """A machine that is taken away in the middle of a step leaves what was packed."""
    (tmp_path / "docs").mkdir()
    shutil.copy(SCRIPT, tmp_path / "docs")
    python = tmp_path / "python"
    python.write_text(IMPATIENT)
    python.chmod(0o755)
    out = tmp_path / "out"
    env = os.environ | dict(PYTHON=str(python), OUT=str(out), EVERY="0.2")
    command = ["bash", str(tmp_path / "docs/cuda.sh"), "c"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in out.iterdir()] == ["results.tar.gz"]
