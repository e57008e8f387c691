"""A suite goes on when its output cannot be written: records and logs are enough."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import kills
import pytest

TINY = Path(__file__).resolve().parent / "tiny.py"
RUN = [sys.executable, str(TINY), "run", "tiny", "--jobs", "2", "--device", "cpu", "--no-notebook"]
RUN += ["--only", "zero"]
RUNS = 3


def start(root, redirection="", **popen):
    """`zeroinit run tiny` in a shell, with a redirection of its output."""
    args = ["sh", "-c", f'exec "$@" {redirection}', "sh", *RUN, "--results-root", str(root)]
    env = {**os.environ, "PYTHONPATH": str(TINY.parent.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(args, env=env, start_new_session=True, **popen)


def check_complete(root):
    found = kills.records(root)
    assert len(found) == RUNS
    for path in found.values():
        assert len(json.loads(path.read_text())["history"]) == kills.EPOCHS
    assert len(list((root.parent / ".runs").rglob("*.log"))) == RUNS


@pytest.mark.slow
@pytest.mark.parametrize("redirection", [">/dev/full 2>/dev/full", ">&- 2>&- <&-"])
def test_a_full_disk_or_a_closed_stream(redirection, tmp_path):
    root = tmp_path / "results"
    assert start(root, redirection).wait(600) == 0
    check_complete(root)


def test_a_broken_pipe(tmp_path):
    root = tmp_path / "results"
    child = start(root, stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(600) == 0
    check_complete(root)


@pytest.mark.slow
def test_a_terminal_that_is_closed(tmp_path):
    """The driver and its workers get SIGHUP, and every later line is an error."""
    root = tmp_path / "results"
    ours, theirs = pty.openpty()
    child = start(root, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while not re.search(rb"\d/3 digits", seen):
        seen += os.read(ours, 4096)
    os.close(ours)
    os.killpg(child.pid, signal.SIGHUP)
    assert child.wait(600) == 0
    check_complete(root)
