"""Suites on a real Ray cluster of two nodes on this machine.

Lost workers, a lost node, a node without the driver's disk, and requests that no node can meet.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import kills
import numpy as np
import psutil
import pytest
import torch

from zeroinit.data.datasets import arrays_digest, load, write_npz

pytestmark = pytest.mark.slow

pytest.importorskip("ray", reason="Ray is not installed: pip install 'zeroinit[ray]'")
TESTS = Path(__file__).resolve().parent
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

options = dict(num_cpus=1, object_store_memory=2**27)
cluster = Cluster(initialize_head=True, head_node_args=dict(options, include_dashboard=False))
nodes = [cluster.head_node]
print(cluster.address, flush=True)
for command in sys.stdin:
    if command.strip() == "add":
        nodes.append(cluster.add_node(**options))
    if command.strip() == "kill":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    print(len(nodes), flush=True)
cluster.shutdown()
"""
# put before a driver's script: the file by which a node recognizes the driver's disk is removed
HIDE_DISK = """
from zeroinit.sweep import ray_cluster

make_mark = ray_cluster.driver_mark


def hidden_mark(root):
    mark = make_mark(root)
    (root.parent / ".runs" / mark.rpartition("-")[0]).unlink()
    return mark


ray_cluster.driver_mark = hidden_mark
"""
SERVER = """
import socket, time

server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(120)
"""


class Nodes:
    """A head and more nodes, in a process of their own.

    `log` is the file that takes what Ray prints.
    """

    def __init__(self, log):
        env = {name: value for name, value in os.environ.items() if name != "ZEROINIT_DATA"}
        env |= {
            "PYTHONPATH": str(TESTS.parent),
            "XDG_CACHE_HOME": os.devnull,
            "RAY_health_check_initial_delay_ms": "2000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
        }
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CLUSTER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env=env,
            )
        self.address = self.process.stdout.readline().strip()

    def send(self, command):
        """Add a node, or kill the last one; returns how many there are, 0 if the process died."""
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return 0
        return int(self.process.stdout.readline() or 0)

    def end(self):
        """End the process, and what it started."""
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self.process.stdin.close()
            self.process.wait(timeout=30)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start_nodes(folder, attempts=4):
    """Two nodes.

    Ray gives a node 30 s to start, which no option changes and a busy machine may exceed: it is
    tried again.
    """
    for attempt in range(attempts):
        log = folder / f"ray{attempt}.log"
        cluster = Nodes(log)
        if ":" in cluster.address and cluster.send("add") == 2:
            return cluster
        cluster.end()
    raise RuntimeError(f"Ray did not start {attempts} times: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    cluster = start_nodes(tmp_path_factory.mktemp("nodes"))
    yield cluster
    cluster.end()


def start(*args, script=TESTS / "tiny.py", env=None):
    """Start the command of tests/tiny.py, or of another script, with these arguments."""
    env = {
        **os.environ,
        "PYTHONPATH": str(TESTS.parent),
        "PYTHONUNBUFFERED": "1",
        **(env or {}),
    }
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, args)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def start_on(nodes, folder, *more, suite="tiny", **kw):
    """Start a suite on a cluster; its records go to `results` in a folder."""
    root = folder / "results"
    return start("run", suite, "--ray", nodes.address, "--results-root", root, *more, **kw)


def result_of(child, timeout=240):
    """The exit code, the standard output and the standard error of a command, when it has ended."""
    out, err = child.communicate(timeout=timeout)
    return child.returncode, out, err


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The numbers of an undisturbed suite, run by processes of this machine."""
    root = tmp_path_factory.mktemp("calm") / "results"
    options = ["--jobs", "2", "--device", "cpu", "--no-notebook", "--results-root", root]
    code, out, err = result_of(start("run", "tiny", *options))
    assert code == 0, out + err
    return numbers_in(root)


def numbers_in(root):
    return {name: kills.numbers(path) for name, path in kills.records(root).items()}


def is_complete(folder, calm):
    """Whether all records are those of the undisturbed suite, and no checkpoint is left."""
    return numbers_in(folder / "results") == calm and not list(folder.rglob("*.safetensors"))


def logs_in(folder):
    return [path.read_text() for path in folder.glob(".runs/**/*.log")]


def epochs_in(log):
    return log.count(" s, train_acc")


def tasks_at_work():
    """Ray's processes that run one of our tasks."""
    processes = psutil.process_iter(["name", "cmdline"])
    return [p for p in processes if "ray::run_task" in " ".join(p.info["cmdline"] or [])]


def wait_for_line(child, beginning):
    """Read a command's output up to a line with this beginning."""
    for line in child.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(child.stderr.read())


def wait_until(condition, seconds):
    """Ask ten times a second until a condition holds; returns its value."""
    for _ in range(10 * seconds):
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {condition}")


def test_the_same_records_and_notebooks(nodes, calm, tmp_path):
    code, out, err = result_of(start_on(nodes, tmp_path))
    assert code == 0 and out.count(": done, test accuracy") == 6, out + err
    assert is_complete(tmp_path, calm)
    assert len(list(tmp_path.glob(".runs/**/*.ipynb"))) == 6
    assert [epochs_in(log) for log in logs_in(tmp_path)] == [40] * 6


def test_a_killed_worker_is_replaced(nodes, calm, tmp_path):
    child = start_on(nodes, tmp_path, "--no-notebook")
    wait_for_line(child, "1/6")
    victims = wait_until(tasks_at_work, 10)
    victims[0].kill()
    code, out, err = result_of(child)
    assert code == 0 and is_complete(tmp_path, calm), out + err


def test_nodes_that_share_no_disk(nodes, calm, tmp_path):
    """The nodes do not see the driver's folder: results and log lines come back through Ray."""
    script = tmp_path / "hidden.py"
    script.write_text(HIDE_DISK + (TESTS / "tiny.py").read_text())

    def any_run_is_under_way():
        return any(0 < epochs_in(log) < 40 for log in logs_in(tmp_path))

    child = start_on(nodes, tmp_path, script=script)
    wait_for_line(child, "2/6")
    wait_until(any_run_is_under_way, 10)  # the driver sees how a run is doing
    child.send_signal(signal.SIGINT)
    code, out, err = result_of(child)
    assert code == 130 and "finishing the running epochs" in err, out + err
    assert "Traceback" not in err
    assert list(tmp_path.rglob("*.safetensors"))  # the checkpoints have come back, too

    code, out, err = result_of(start_on(nodes, tmp_path, script=script))
    assert code == 0 and is_complete(tmp_path, calm), out + err
    assert len(list(tmp_path.glob(".runs/**/*.ipynb"))) == 6
    logs = logs_in(tmp_path)
    assert {epochs_in(log) for log in logs} == {40}, max(logs, key=len)  # no epoch twice


def test_data_that_only_the_driver_has(nodes, tmp_path):
    """The cluster was started without $ZEROINIT_DATA; the images reach its nodes through Ray."""
    digits = load("digits")
    large = torch.nn.functional.interpolate(digits.x_train[:700].float(), size=28)
    x, y = large.byte()[:, 0].numpy(), digits.y_train[:700].numpy()
    arrays = dict(x_train=x[:600], y_train=y[:600], x_test=x[600:], y_test=y[600:])
    # as `load` keeps what it has read from an archive
    checked = np.array(arrays_digest(arrays))
    write_npz(tmp_path / "data/mnist.npz", arrays | dict(checked=checked))
    env = dict(ZEROINIT_DATA=str(tmp_path / "data"), XDG_CACHE_HOME=str(tmp_path))
    child = start_on(nodes, tmp_path, "--no-notebook", suite="grown", env=env)
    code, out, err = result_of(child)
    assert code == 0 and len(kills.records(tmp_path / "results")) == 2, out + err


def test_a_killed_driver_leaves_no_task_behind(nodes, calm, tmp_path):
    child = start_on(nodes, tmp_path, "--no-notebook")
    wait_for_line(child, "1/6")
    child.kill()
    child.wait()
    wait_until(lambda: not tasks_at_work(), 20)
    code, out, err = result_of(start_on(nodes, tmp_path, "--no-notebook"))
    assert code == 0 and is_complete(tmp_path, calm), out + err


def test_sigterm_ends_the_epoch_here_too(nodes, calm, tmp_path):
    """Ray handles SIGTERM itself; our handler is put back."""
    child = start_on(nodes, tmp_path, "--no-notebook")
    wait_for_line(child, "1/6")
    child.send_signal(signal.SIGTERM)
    code, out, err = result_of(child)
    assert code == 143 and "finishing the running epochs" in err, out + err
    assert "the same command continues" in out
    code, out, err = result_of(start_on(nodes, tmp_path, "--no-notebook"))
    assert code == 0 and is_complete(tmp_path, calm), out + err


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--gpus-per-run", "1"], "a run asks for 1 GPU, but no node of the cluster has any"),
        (["--gpus-per-run", "0.5"], "a run asks for 0.5 GPU"),
    ],
)
def test_what_no_node_has_is_refused_at_once(nodes, more, sentence, tmp_path):
    begun = time.perf_counter()
    code, out, err = result_of(start_on(nodes, tmp_path, *more))
    assert code == 2 and sentence in err and len(err.splitlines()) == 1, out + err
    assert time.perf_counter() - begun < 40


@pytest.fixture
def other_server():
    """The address of a server that is no Ray cluster."""
    server = subprocess.Popen(
        [sys.executable, "-u", "-c", SERVER], stdout=subprocess.PIPE, text=True
    )
    yield f"127.0.0.1:{server.stdout.readline().strip()}"
    server.kill()


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "ray://127.0.0.1:1", "192.0.2.1:6379", "here", "a server that is no cluster"],
)
def test_an_address_where_no_cluster_is(address, other_server, tmp_path):
    if address == "a server that is no cluster":
        address = other_server
    begun = time.perf_counter()
    child = start("run", "tiny", "--ray", address, "--results-root", tmp_path / "results")
    code, out, err = result_of(child)
    assert code == 2 and ("cluster" in err or "no response" in err), out + err
    assert "Traceback" not in err
    ours = [line for line in err.splitlines() if not line.startswith("[")]  # Ray's C++ warns, too
    assert len(ours) == 1, err
    assert time.perf_counter() - begun < 40  # 30 s for the cluster, the rest for Python
    assert kills.records(tmp_path / "results") == {}


def test_a_killed_node(nodes, calm, tmp_path):
    """Last, since the cluster is smaller afterwards: the other node does the rest."""
    child = start_on(nodes, tmp_path, "--no-notebook")
    wait_for_line(child, "1/6")
    assert nodes.send("kill") == 1
    code, out, err = result_of(child)
    assert code == 0 and is_complete(tmp_path, calm), out + err
