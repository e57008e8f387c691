"""Seeds in processes, as a notebook starts them: interrupted, and killed."""

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from jupyter_client.manager import start_new_kernel

pytestmark = pytest.mark.slow

RUN = """
from zeroinit.experiments.requests import request
from zeroinit.sweep.seeds import run_seeds

r = request(dict(dataset="digits", epochs={epochs}, seeds=3, jobs=2, results_root={root!r}))
r.run(run_seeds);
"""


@pytest.fixture
def kernel(tree):
    """A kernel in the folder of the notebooks: its manager and its client."""
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    manager, client = start_new_kernel(cwd=str(tree / "nbs"), env=env)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def finish(client, code, started=lambda: None):
    """Execute code, and call `started` meanwhile; the name of the error, and what is printed."""
    message = client.execute(code)
    started()
    error, text = "", ""
    while True:
        got = client.get_iopub_msg(timeout=120)
        if got["parent_header"].get("msg_id") != message:
            continue
        content = got["content"]
        if got["msg_type"] == "error":
            error = content["ename"]
        text += content.get("text", "")
        if got["msg_type"] == "status" and content["execution_state"] == "idle":
            return error, text


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def checkpoints(folder):
    return [*Path(folder).glob(".runs/*/*/*/seed*.safetensors")]


def records(folder):
    return sorted(path.name for path in Path(folder).rglob("results/*/*/*/seed*.json"))


def test_the_stop_button_keeps_the_epochs_and_the_same_cell_goes_on(kernel, tmp_path):
    manager, client = kernel
    code = RUN.format(epochs=150, root=str(tmp_path / "results"))

    def interrupt():
        wait_for(lambda: len(checkpoints(tmp_path)) == 2)
        manager.interrupt_kernel()

    error, text = finish(client, code, interrupt)
    assert error == "Stopped", text
    assert "2 stopped, 1 not begun, the same command continues" in text
    assert len(checkpoints(tmp_path)) == 2 and records(tmp_path) == []

    error, text = finish(client, code)
    assert error == "" and text.count(": test accuracy 0.") == 3, text
    assert records(tmp_path) == ["seed0.json", "seed1.json", "seed2.json"]
    for path in tmp_path.rglob("seed[01].log"):  # no epoch was trained twice
        assert len(re.findall(r"^\S+ epoch ", path.read_text(), re.M)) == 150


def test_no_process_outlives_a_killed_kernel(kernel, tmp_path):
    manager, client = kernel
    client.execute(RUN.format(epochs=10_000, root=str(tmp_path / "results")))
    wait_for(lambda: len(checkpoints(tmp_path)) == 2)
    ours = psutil.Process(manager.provisioner.pid)
    started = ours.children(recursive=True)
    assert len(started) >= 2
    os.kill(ours.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
