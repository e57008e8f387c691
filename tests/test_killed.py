"""Runs that are killed or interrupted, or whose disk is full: what they leave is complete, and the
same command continues."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

RUN = """
import sys, torch
torch.set_num_threads(1)
from zeroinit.experiments.resolve import resolve
from zeroinit.experiments.runner import run
run(resolve(dataset="digits", epochs=30), results_root=sys.argv[1], device="cpu")
"""
LIMIT_FILES = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
"""


def start(tree, root):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(root)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def numbers(root):
    """Everything in the only record except times and the machine."""
    (path,) = Path(root).rglob("seed*.json")
    record = json.loads(path.read_text())
    history = [
        {name: value for name, value in epoch.items() if name != "seconds"}
        for epoch in record["history"]
    ]
    return record["config"], record["seed"], record["status"], history, record["probes"]


def log_of(root):
    """What the only run has logged so far, an epoch a line."""
    return "".join(path.read_text() for path in Path(root).rglob("seed*.log"))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_run_ends_with_the_same_bits(how, tree, tmp_path):
    undisturbed = start(tree, tmp_path / "whole/results")
    assert undisturbed.wait(timeout=120) == 0, undisturbed.stderr.read()

    stopped = start(tree, tmp_path / "cut/results")
    while " epoch 7/30" not in log_of(tmp_path / "cut"):
        assert stopped.poll() is None, stopped.stderr.read()
        time.sleep(0.01)
    stopped.send_signal(how)
    assert stopped.wait(timeout=60) != 0
    assert not list((tmp_path / "cut/results").rglob("*.json"))
    assert len(list((tmp_path / "cut/.runs").rglob("*.safetensors"))) == 1

    again = start(tree, tmp_path / "cut/results")
    assert again.wait(timeout=120) == 0, again.stderr.read()
    assert log_of(tmp_path / "cut").count(" epoch 1/30") == 1  # it did not start over
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    assert not list((tmp_path / "cut/.runs").rglob("*.safetensors"))


@pytest.mark.slow
def test_a_bar_in_a_terminal(tree, tmp_path):
    """A terminal shows a bar with the accuracy; a log file gets a line per epoch."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    script = RUN.replace("epochs=30", "epochs=2")
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "results")],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    output = b""
    while chunk := read_terminal(ours):
        output += chunk
    assert child.wait(timeout=60) == 0
    for shown in (b"100%", b"2/2", b"test accuracy"):
        assert shown in output
    assert b" so far" not in output  # the bar is drawn, and no line is printed


def read_terminal(fd):
    try:
        return os.read(fd, 4096)
    except OSError:  # the other end closed
        return b""


@pytest.mark.slow
def test_full_disk(tree, tmp_path):
    """A limit on the size of files stands for a full disk: the checkpoint does not fit, and no
    half-written file stays."""
    done = subprocess.run(
        [sys.executable, "-c", LIMIT_FILES + RUN, str(tmp_path / "results")],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    last_line = done.stderr.splitlines()[-1]
    assert "could not write" in last_line and "free some space" in last_line
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".lock", ".log"}


@pytest.mark.parametrize(
    "args, sentence",
    [
        (["run", "dmeo"], "unknown suite 'dmeo' (did you mean demo?)"),
        (["plan", "demo", "--only", "resnet"], "no run of demo matches 'resnet'"),
        (["run", "demo", "--jobs", "0"], "--jobs must be 1 or more"),
        (["run", "demo", "--device", "gpu"], "there is no device 'gpu'"),
        (["run", "demo", "--results-root", "/dev/null"], "could not write in /dev/null"),
    ],
)
def test_the_command_refuses_in_one_line(args, sentence, call):
    done = call("zeroinit", *args, check=False)
    assert done.returncode == 2 and len(done.stdout.splitlines()) <= 2
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
