"""Runs that are killed, interrupted, or out of room: what is there afterwards is complete, and the same command goes on."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

RUN = """
import sys, torch
torch.set_num_threads(1)
from zeroinit.experiments.runner import resolve, run
run(resolve(dataset="digits", epochs=30), results_root=sys.argv[1], device="cpu")
"""


def start(tree, root):
    env = {**os.environ, "PYTHONPATH": str(tree), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(root)],
        cwd=tree,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def numbers(root):
    """Everything in the one record but times and the machine."""
    (path,) = Path(root).rglob("seed*.json")
    r = json.loads(path.read_text())
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in r["history"]]
    return r["config"], r["seed"], r["status"], history, r["probes"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_run_ends_with_the_same_bits(how, tree, tmp_path):
    whole = start(tree, tmp_path / "whole/results")
    assert whole.wait(timeout=120) == 0, whole.stderr.read()

    stopped = start(tree, tmp_path / "cut/results")
    for line in stopped.stdout:
        if " epoch 7/30" in line:
            break
    stopped.send_signal(how)
    assert stopped.wait(timeout=60) != 0
    assert not list((tmp_path / "cut/results").rglob("*.json"))
    assert len(list((tmp_path / "cut/.runs").rglob("*.safetensors"))) == 1

    again = start(tree, tmp_path / "cut/results")
    lines = again.stdout.readlines()
    assert again.wait(timeout=120) == 0, again.stderr.read()
    first = int(lines[0].split(" epoch ")[1].split("/")[0])
    assert first >= 8  # it did not begin anew
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    assert not list((tmp_path / "cut/.runs").rglob("*.safetensors"))


def test_a_bar_in_a_terminal(tree, tmp_path):
    """A person at a terminal sees a bar with the accuracy; a log file sees a line an epoch."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    env = {**os.environ, "PYTHONPATH": str(tree), "TERM": "xterm"}
    child = subprocess.Popen(
        [sys.executable, "-c", RUN.replace("epochs=30", "epochs=2"), str(tmp_path / "results")],
        cwd=tree,
        env=env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while chunk := _read(ours):
        said += chunk
    assert child.wait(timeout=60) == 0
    assert b"100%" in said and b"2/2" in said and b"test_acc" in said and b"epoch 1/2" not in said


def _read(fd):
    try:
        return os.read(fd, 4096)
    except OSError:  # the other end closed
        return b""


def test_full_disk(tree, tmp_path):
    """A limit on the size of files stands for a full disk: the checkpoint does not fit, nothing half-written stays."""
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
        + RUN
    )
    env = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path / "results")],
        cwd=tree,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert (
        "could not write" in done.stderr.splitlines()[-1]
        and "free some space" in done.stderr.splitlines()[-1]
    )
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
