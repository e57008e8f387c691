"""Runs that are killed, interrupted, or out of room: what is there afterwards is complete, and the same command goes on."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = """
import sys, torch
torch.set_num_threads(1)
from zeroinit.experiments import resolve, run
run(resolve(dataset="digits", epochs=30), results_root=sys.argv[1], device="cpu")
"""


def start(tree, root):
    env = {**os.environ, "PYTHONPATH": str(tree), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen([sys.executable, "-c", RUN, str(root)], cwd=tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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
    assert len(list((tmp_path / "cut/.runs").glob("*.safetensors"))) == 1

    again = start(tree, tmp_path / "cut/results")
    lines = again.stdout.readlines()
    assert again.wait(timeout=120) == 0, again.stderr.read()
    first = int(lines[0].split(" epoch ")[1].split("/")[0])
    assert first >= 8  # it did not begin anew
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    assert not list((tmp_path / "cut/.runs").glob("*.safetensors"))


def test_full_disk(tree, tmp_path):
    """A limit on the size of files stands for a full disk: the checkpoint does not fit, nothing half-written stays."""
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))" + RUN
    env = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run([sys.executable, "-c", limited, str(tmp_path / "results")], cwd=tree, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "could not write" in done.stderr.splitlines()[-1] and "free some space" in done.stderr.splitlines()[-1]
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_the_command_runs_in_processes_and_stops_when_told(tree, call, tmp_path):
    """Two workers, interrupted, then continued: each run once, and the second call has only the rest to do."""
    env = {**os.environ, "PYTHONPATH": str(tree), "PYTHONUNBUFFERED": "1"}
    args = ["zeroinit", "run", "demo", "--jobs", "2", "--only", "(zero|default)", "--results-root", str(tmp_path / "results")]
    child = subprocess.Popen(args, cwd=tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for line in child.stdout:
        if line.startswith("2/15"):
            break
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    assert child.wait(timeout=60) == 130
    errors = child.stderr.read()
    assert "zeroinit: stopped; the same command goes on from here" in errors and "Traceback" not in errors, errors
    time.sleep(1)
    done = len(list((tmp_path / "results").rglob("seed*.json")))
    assert 2 <= done < 15
    said = call(*args).stdout.splitlines()
    assert said[0] == f"demo: 15 runs, {done} done, {15 - done} to do"
    assert len(list((tmp_path / "results").rglob("seed*.json"))) == 15
    assert call(*args).stdout.splitlines() == ["demo: 15 runs, 15 done, 0 to do"]
    plan = call("zeroinit", "plan", "demo", "--results-root", tmp_path / "results").stdout
    assert "30 runs, 15 done" in plan


@pytest.mark.parametrize(
    "args, sentence",
    [(["run", "dmeo"], "unknown suite 'dmeo' (did you mean demo?)"), (["plan", "demo", "--only", "resnet"], "no run of demo matches 'resnet'"), (["run", "demo", "--jobs", "0"], "--jobs must be 1 or more")],
)
def test_the_command_refuses_in_one_line(args, sentence, call):
    done = call("zeroinit", *args, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
