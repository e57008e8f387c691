"""Suites on a real Ray cluster of two nodes on this machine: lost workers, a lost node, a node without the driver's disk, requests that nobody can meet."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import kills
import psutil
import pytest
import torch

from zeroinit.data.datasets import load, write_npz

pytest.importorskip("ray", reason="Ray is not installed: pip install 'zeroinit[ray]'")
TESTS = Path(__file__).resolve().parent
CLUSTER = """
import sys, time
from ray.cluster_utils import Cluster
told = dict(num_cpus=1, object_store_memory=2**27)
cluster = Cluster(initialize_head=True, head_node_args=dict(told, include_dashboard=False))
nodes = [cluster.head_node]
print(cluster.address, flush=True)
for command in sys.stdin: # add a node, or kill the last one
    if command.strip() == "add": nodes.append(cluster.add_node(**told))
    if command.strip() == "kill": cluster.remove_node(nodes.pop(), allow_graceful=False)
    print(len(nodes), flush=True)
cluster.shutdown()
"""


class Nodes:
    """A head and more nodes, in a process of their own."""

    def __init__(self):
        env = {k: v for k, v in os.environ.items() if k != "ZEROINIT_DATA"}
        env |= {
            "PYTHONPATH": str(TESTS.parent),
            "XDG_CACHE_HOME": os.devnull,
            "RAY_health_check_initial_delay_ms": "2000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env=env,
        )
        self.address = self.process.stdout.readline().strip()

    def say(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def nodes():
    cluster = Nodes()
    assert ":" in cluster.address and cluster.say("add") == 2
    yield cluster
    cluster.end()


def tiny(*args, env=None, **kw):
    env = {**os.environ, "PYTHONPATH": str(TESTS.parent), "PYTHONUNBUFFERED": "1", **(env or {})}
    return subprocess.Popen(
        [sys.executable, str(TESTS / "tiny.py"), *map(str, args)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **kw,
    )


def done(child, timeout=240):
    out, err = child.communicate(timeout=timeout)
    return child.returncode, out, err


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """An undisturbed suite, by processes."""
    folder = tmp_path_factory.mktemp("calm")
    code, out, err = done(
        tiny(
            "run",
            "tiny",
            "--jobs",
            "2",
            "--device",
            "cpu",
            "--no-notebook",
            "--results-root",
            folder / "results",
        )
    )
    assert code == 0, out + err
    return {name: kills.numbers(path) for name, path in kills.records(folder / "results").items()}


def same(folder, calm):
    left = kills.records(folder / "results")
    return {name: kills.numbers(path) for name, path in left.items()} == calm and not list(
        folder.rglob("*.safetensors")
    )


def at_work():
    """Ray's processes that are at a run of ours."""
    return [
        p
        for p in psutil.process_iter(["name", "cmdline"])
        if "ray::task" in " ".join(p.info["cmdline"] or [])
    ]


def line(child, start):
    for said in child.stdout:
        if said.startswith(start):
            return
    raise AssertionError(child.stderr.read())


def test_the_same_records_notebooks_too_and_no_word_of_failure(nodes, calm, tmp_path):
    code, out, err = done(
        tiny("run", "tiny", "--ray", nodes.address, "--results-root", tmp_path / "results")
    )
    assert code == 0 and out.count(": done, test accuracy") == 6, out + err
    assert same(tmp_path, calm)
    assert len(list(tmp_path.glob(".runs/**/*.ipynb"))) == 6
    assert all(p.read_text().count(" s, train_acc") == 40 for p in tmp_path.glob(".runs/**/*.log"))


def test_a_killed_worker_is_replaced(nodes, calm, tmp_path):
    child = tiny(
        "run",
        "tiny",
        "--ray",
        nodes.address,
        "--no-notebook",
        "--results-root",
        tmp_path / "results",
    )
    line(child, "1/6")
    for _ in range(100):
        if victims := at_work():
            break
        time.sleep(0.1)
    victims[0].kill()
    code, out, err = done(child)
    assert code == 0 and same(tmp_path, calm), out + err


def test_nodes_that_share_no_disk(nodes, calm, tmp_path, monkeypatch):
    """The driver's folder is hidden from the nodes: results come back through Ray, and the log line by line."""
    hidden = "import zeroinit.sweep.ray_cluster as c; mark = c.marked; c.marked = lambda root: (made := mark(root), (root.parent / '.runs' / made.rpartition('-')[0]).unlink())[0]\n"
    script = tmp_path / "hidden.py"
    script.write_text(hidden + (TESTS / "tiny.py").read_text())
    env = {**os.environ, "PYTHONPATH": str(TESTS.parent), "PYTHONUNBUFFERED": "1"}
    args = [
        sys.executable,
        str(script),
        "run",
        "tiny",
        "--ray",
        nodes.address,
        "--results-root",
        str(tmp_path / "results"),
    ]
    child = subprocess.Popen(
        args,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    line(child, "2/6")
    for _ in range(100):  # how it goes is known here while it goes
        if any(
            0 < p.read_text().count(" s, train_acc") < 40 for p in tmp_path.glob(".runs/**/*.log")
        ):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("no epoch was told of")
    child.send_signal(signal.SIGINT)
    code, out, err = done(child)
    assert code == 130 and "finishing the running epochs" in err and "Traceback" not in err, (
        out + err
    )
    assert list(tmp_path.rglob("*.safetensors"))  # the checkpoints came home too
    code, out, err = done(
        subprocess.Popen(
            args,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    )
    assert code == 0 and same(tmp_path, calm), out + err
    assert len(list(tmp_path.glob(".runs/**/*.ipynb"))) == 6
    told = [p.read_text() for p in tmp_path.glob(".runs/**/*.log")]
    assert {text.count(" s, train_acc") for text in told} == {40}, max(
        told, key=len
    )  # nothing was trained twice


def test_data_that_only_the_driver_has(nodes, tmp_path):
    """The cluster was started without $ZEROINIT_DATA, and the images reach its nodes through Ray."""
    digits = load("digits")
    x = torch.nn.functional.interpolate(digits.x_train[:700].float(), size=28).byte()[:, 0].numpy()
    write_npz(
        tmp_path / "data/mnist.npz",
        dict(
            x_train=x[:600],
            y_train=digits.y_train[:600].numpy(),
            x_test=x[600:],
            y_test=digits.y_train[600:700].numpy(),
        ),
    )
    env = dict(ZEROINIT_DATA=str(tmp_path / "data"), XDG_CACHE_HOME=str(tmp_path))
    code, out, err = done(
        tiny(
            "run",
            "grown",
            "--ray",
            nodes.address,
            "--no-notebook",
            "--results-root",
            tmp_path / "results",
            env=env,
        )
    )
    assert code == 0 and len(kills.records(tmp_path / "results")) == 2, out + err


def test_a_killed_driver_leaves_nobody_at_work(nodes, calm, tmp_path):
    child = tiny(
        "run",
        "tiny",
        "--ray",
        nodes.address,
        "--no-notebook",
        "--results-root",
        tmp_path / "results",
    )
    line(child, "1/6")
    child.kill()
    child.wait()
    for _ in range(200):
        if not at_work():
            break
        time.sleep(0.1)
    assert at_work() == []
    code, out, err = done(
        tiny(
            "run",
            "tiny",
            "--ray",
            nodes.address,
            "--no-notebook",
            "--results-root",
            tmp_path / "results",
        )
    )
    assert code == 0 and same(tmp_path, calm), out + err


def test_sigterm_ends_the_epoch_here_too(nodes, calm, tmp_path):
    """Ray takes SIGTERM for itself; we take it back."""
    args = (
        "run",
        "tiny",
        "--ray",
        nodes.address,
        "--no-notebook",
        "--results-root",
        tmp_path / "results",
    )
    child = tiny(*args)
    line(child, "1/6")
    child.send_signal(signal.SIGTERM)
    code, out, err = done(child)
    assert (
        code == 143 and "finishing the running epochs" in err and "the same command goes on" in out
    ), out + err
    code, out, err = done(tiny(*args))
    assert code == 0 and same(tmp_path, calm), out + err


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--gpus-per-run", "1"], "a run asks for 1 GPU, but no node of the cluster has any"),
        (["--gpus-per-run", "0.5"], "a run asks for 0.5 GPU"),
    ],
)
def test_what_no_node_has_is_refused_at_once(nodes, more, sentence, tmp_path):
    start = time.perf_counter()
    code, out, err = done(
        tiny("run", "tiny", "--ray", nodes.address, *more, "--results-root", tmp_path / "results")
    )
    assert code == 2 and sentence in err and len(err.splitlines()) == 1, out + err
    assert time.perf_counter() - start < 40


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "ray://127.0.0.1:1", "192.0.2.1:6379", "here", "a server that is no cluster"],
)
def test_an_address_where_no_cluster_is(address, tmp_path):
    server = subprocess.Popen(
        [
            sys.executable,
            "-u",
            "-c",
            "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); time.sleep(120)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    address = f"127.0.0.1:{server.stdout.readline().strip()}" if "server" in address else address
    start = time.perf_counter()
    code, out, err = done(
        tiny("run", "tiny", "--ray", address, "--results-root", tmp_path / "results")
    )
    server.kill()
    assert code == 2 and ("cluster" in err or "nobody answers" in err) and "Traceback" not in err, (
        out + err
    )
    assert len([x for x in err.splitlines() if not x.startswith("[")]) == 1, (
        err
    )  # Ray's own C++ warns, too
    assert time.perf_counter() - start < 40  # 30 s for the cluster, the rest for Python
    assert kills.records(tmp_path / "results") == {}


def test_a_killed_node(nodes, calm, tmp_path):
    """Last, for the cluster is smaller afterwards: the other node does the rest."""
    child = tiny(
        "run",
        "tiny",
        "--ray",
        nodes.address,
        "--no-notebook",
        "--results-root",
        tmp_path / "results",
    )
    line(child, "1/6")
    assert nodes.say("kill") == 1
    code, out, err = done(child)
    assert code == 0 and same(tmp_path, calm), out + err
