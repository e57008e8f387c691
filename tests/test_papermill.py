"""`papermill nbs/run_experiment.ipynb -p ...` as people type it: in a terminal, behind a pipe, from a program; and with mistakes."""

import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

NB = "nbs/run_experiment.ipynb"
FAST = ["-p", "dataset", "digits", "-p", "model", "fnn", "-p", "epochs", "1"]


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def record_of(root):
    (path,) = Path(root).rglob("seed*.json")
    return json.loads(path.read_text())


def outputs(tree):
    return set((tree / ".runs").glob("*.ipynb"))


def test_subprocess_and_values_reach_the_record(tree, call, tmp_path):
    before, nb = outputs(tree), digest(tree / NB)
    call(
        "papermill",
        NB,
        *FAST,
        "-p",
        "seed",
        "3",
        "-p",
        "lr",
        "5e-3",
        "-y",
        "{init_args: {std: 0.5}}",
        "-p",
        "results_root",
        tmp_path / "results",
    )
    record = record_of(tmp_path)
    told = {k: record["config"][k] for k in ("model", "dataset", "epochs", "lr", "init_args")}
    assert told == dict(model="fnn", dataset="digits", epochs=1, lr=5e-3, init_args={"std": 0.5})
    assert record["seed"] == 3 and record["status"] == "done"
    (made,) = outputs(tree) - before
    images = [
        o
        for c in json.loads(made.read_text())["cells"]
        for o in c.get("outputs", [])
        if "image/png" in o.get("data", {})
    ]
    assert len(images) == 1  # the one curve
    assert digest(tree / NB) == nb


def test_stdin_a_pipe(tree, call, tmp_path):
    before, nb = outputs(tree), digest(tree / NB)
    call(
        "papermill",
        NB,
        *FAST,
        "-p",
        "results_root",
        tmp_path / "results",
        stdin=None,
        input="not a notebook\n",
    )
    assert record_of(tmp_path)["config"]["dataset"] == "digits"
    assert len(outputs(tree) - before) == 1 and digest(tree / NB) == nb


def test_terminal(tree, tmp_path):
    before = outputs(tree)
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(tree), "TERM": "xterm"}
    args = ["papermill", NB, *FAST, "-p", "results_root", str(tmp_path / "results")]
    child = subprocess.Popen(args, cwd=tree, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the other end closed
            break
        if not chunk:
            break
        said += chunk
    assert child.wait(timeout=120) == 0, said.decode()
    assert b"executed notebook: .runs/" in said
    assert record_of(tmp_path)["status"] == "done" and len(outputs(tree) - before) == 1


def test_python_dash_m(tree, call, tmp_path):
    call(sys.executable, "-m", "papermill", NB, *FAST, "-p", "results_root", tmp_path / "results")
    assert record_of(tmp_path)["status"] == "done"


def test_an_output_that_was_named_is_kept(tree, call, tmp_path):
    before = outputs(tree)
    call(
        "papermill", NB, tmp_path / "mine.ipynb", *FAST, "-p", "results_root", tmp_path / "results"
    )
    assert (tmp_path / "mine.ipynb").exists() and outputs(tree) == before


def test_other_notebooks_are_left_alone(tree, call, tmp_path):
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    spec = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(
        new_notebook(cells=[new_code_cell("1 + 1")], metadata=spec), tmp_path / "other.ipynb"
    )
    done = call("papermill", "other.ipynb", cwd=tmp_path)
    assert (
        '"cells"' in done.stdout
    )  # papermill's own way: the executed notebook on a redirected stdout
    assert not (tmp_path / ".runs").exists()


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (
            ["-p", "model", "resnet51", "-p", "init", "zero"],
            "unknown model 'resnet51' (did you mean resnet50",
        ),
        (["-p", "epoch", "2"], "unknown parameter 'epoch' (did you mean epochs?)"),
        (["-p", "epochs", "0"], "epochs must be 1 or more, not 0"),
        (["-p", "dataset", "nothing.npz"], "there is no file nothing.npz"),
        (["-p", "results_root", "/proc/results"], "could not write in /proc/results"),
    ],
    ids=lambda v: v[1] if isinstance(v, list) else "",
)
def test_mistakes_cost_one_sentence_before_training(wrong, sentence, call, tmp_path):
    args = ["-p", "results_root", str(tmp_path / "results")] if "results_root" not in wrong else []
    done = call(
        "papermill",
        NB,
        tmp_path / "out.ipynb",
        "-p",
        "dataset",
        "digits",
        *args,
        *wrong,
        check=False,
    )
    assert done.returncode == 1
    last = [line for line in done.stderr.splitlines() if line.strip()][-1]
    assert sentence in last and last.startswith("Refused: "), done.stderr[-2000:]
    assert not list(tmp_path.rglob("seed*.json"))


def test_no_data_and_no_network(call, tmp_path):
    args = [
        "-p",
        "dataset",
        "mnist",
        "-p",
        "data_root",
        str(tmp_path / "data"),
        "-p",
        "results_root",
        str(tmp_path / "results"),
    ]
    # an address nobody listens at stands for a cut cable
    proxies = dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
    )
    done = call(
        "papermill",
        NB,
        tmp_path / "out.ipynb",
        *args,
        check=False,
        env={**proxies, "no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"},
    )
    assert done.returncode == 1
    last = [line for line in done.stderr.splitlines() if line.strip()][-1]
    assert (
        f"mnist is not in {tmp_path / 'data'}" in last
        and "put mnist.npz there, or set ZEROINIT_DATA" in last
    ), done.stderr[-2000:]
    assert not (tmp_path / "data").exists()


def test_benchmark(call, tmp_path):
    """With few images: every part runs, and the file is what the figure reads."""
    call(
        "papermill",
        "nbs/benchmark.ipynb",
        tmp_path / "out.ipynb",
        "-p",
        "quick",
        "True",
        "-p",
        "threads",
        "1",
        "-p",
        "results_root",
        tmp_path / "results",
    )
    (path,) = tmp_path.glob("results/benchmarks/*-1-threads.json")
    found = json.loads(path.read_text())
    assert found["quick"] and {r["what"] for r in found["table"]} >= {
        "fnn, mnist: epoch, auto",
        "cnn, cifar10: step",
        "start of a run in a warm process",
    }
    assert all(r["ours"] > 0 and (r["plain"] is None or r["plain"] > 0) for r in found["table"])
    assert {r["what"] for r in found["growth"]} == set(found["slopes"]) and sum(
        r["gpu_hours"] for r in found["paper"]
    ) > 1
    call(
        "papermill",
        "nbs/figures/fig_speed.ipynb",
        tmp_path / "fig.ipynb",
        "-p",
        "results_root",
        tmp_path / "results",
        "-p",
        "images",
        tmp_path,
    )
    assert (tmp_path / "fig_speed.png").stat().st_size > 20_000
