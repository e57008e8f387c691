"""`papermill nbs/run_experiment.ipynb -p ...` in a terminal, behind a pipe, and from a program.

And what happens when a user makes a mistake.
"""

import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = "nbs/run_experiment.ipynb"
FAST = ["-p", "dataset", "digits", "-p", "model", "fnn", "-p", "epochs", "1"]


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def record_in(root):
    """The only record below a folder."""
    (path,) = Path(root).rglob("seed*.json")
    return json.loads(path.read_text())


def executed_notebooks(tree):
    return set((tree / ".runs").glob("*.ipynb"))


def last_line(text):
    return [line for line in text.splitlines() if line.strip()][-1]


def options(**parameters):
    """Parameters as papermill's -p options."""
    pairs = [("-p", name, str(value)) for name, value in parameters.items()]
    return [word for pair in pairs for word in pair]


def test_subprocess_and_values_reach_the_record(tree, call, tmp_path):
    before, notebook = executed_notebooks(tree), digest(tree / NOTEBOOK)
    more = options(seed=3, lr="5e-3", results_root=tmp_path / "results")
    done = call("papermill", NOTEBOOK, *FAST, *more, "-y", "{init_args: {std: 0.5}}")
    record = record_in(tmp_path)
    expected = dict(model="fnn", dataset="digits", epochs=1, lr=5e-3, init_args={"std": 0.5})
    assert {name: record["config"][name] for name in expected} == expected
    assert record["seed"] == 3 and record["status"] == "done"

    path = next((tmp_path / "results").rglob("seed3.json"))
    score = f"test accuracy {record['history'][-1]['test_acc']:.4f}"
    assert f"{path}: {score}, trained in" in done.stdout

    (executed,) = executed_notebooks(tree) - before
    cells = json.loads(executed.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1  # the one curve
    assert digest(tree / NOTEBOOK) == notebook


def test_stdin_a_pipe(tree, call, tmp_path):
    before, notebook = executed_notebooks(tree), digest(tree / NOTEBOOK)
    more = options(results_root=tmp_path / "results")
    call("papermill", NOTEBOOK, *FAST, *more, stdin=None, input="not a notebook\n")
    assert record_in(tmp_path)["config"]["dataset"] == "digits"
    assert len(executed_notebooks(tree) - before) == 1
    assert digest(tree / NOTEBOOK) == notebook


def test_terminal(tree, tmp_path):
    before = executed_notebooks(tree)
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(tree), "TERM": "xterm"}
    args = ["papermill", NOTEBOOK, *FAST, *options(results_root=tmp_path / "results")]
    child = subprocess.Popen(args, cwd=tree, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the other end closed
            break
        if not chunk:
            break
        printed += chunk
    assert child.wait(timeout=120) == 0, printed.decode()
    assert b"executed notebook: .runs/" in printed
    assert b": epoch 1/1, 100% of it |" in printed  # the bar
    assert b"Executing:" not in printed  # papermill's own
    assert record_in(tmp_path)["status"] == "done"
    assert len(executed_notebooks(tree) - before) == 1


@pytest.mark.slow
def test_own_runs_go_to_a_folder_that_git_ignores(tree, call):
    status = ["git", "status", "--porcelain"]
    before = call(*status).stdout
    first = call("papermill", NOTEBOOK, *FAST, *options(seed=7))
    (path,) = (tree / "runs").rglob("seed7.json")
    assert f"{path.relative_to(tree)}: test accuracy" in first.stdout
    assert call(*status).stdout == before
    again = call("papermill", NOTEBOOK, *FAST, *options(seed=7))
    assert "this record existed, so nothing was trained" in again.stdout


def test_python_dash_m(tree, call, tmp_path):
    more = options(results_root=tmp_path / "results")
    call(sys.executable, "-m", "papermill", NOTEBOOK, *FAST, *more)
    assert record_in(tmp_path)["status"] == "done"


def test_an_output_that_was_named_is_kept(tree, call, tmp_path):
    before = executed_notebooks(tree)
    more = options(results_root=tmp_path / "results")
    call("papermill", NOTEBOOK, tmp_path / "mine.ipynb", *FAST, *more)
    assert (tmp_path / "mine.ipynb").exists() and executed_notebooks(tree) == before


def test_other_notebooks_are_left_alone(tree, call, tmp_path):
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    spec = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    other = new_notebook(cells=[new_code_cell("1 + 1")], metadata=spec)
    nbformat.write(other, tmp_path / "other.ipynb")
    done = call("papermill", "other.ipynb", cwd=tmp_path)
    # papermill's own behaviour: the executed notebook on a redirected stdout
    assert '"cells"' in done.stdout
    assert not (tmp_path / ".runs").exists()


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (
            dict(model="resnet51", init="zero"),
            "unknown model 'resnet51' (did you mean resnet50",
        ),
        (dict(epoch=2), "unknown parameter 'epoch' (did you mean epochs?)"),
        (dict(epochs=0), "epochs must be 1 or more, not 0"),
        (
            dict(model="torchvision:resnet18"),
            "this can be run: papermill nbs/run_experiment.ipynb -p model torchvision:resnet18 "
            "-p init zero_head",
        ),
        (
            dict(model="torchvision:resnet18"),
            "with add_bias this can be run: papermill nbs/run_experiment.ipynb "
            '-p model torchvision:resnet18 -y \'{"init_args": {"add_bias": true}}\'',
        ),
        (dict(dataset="nothing.npz"), "there is no file nothing.npz"),
        (dict(results_root="/proc/results"), "could not write in /proc/results"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_mistakes_cost_one_sentence_before_training(wrong, sentence, call, tmp_path):
    parameters = dict(dataset="digits", results_root=tmp_path / "results") | wrong
    out = tmp_path / "out.ipynb"
    done = call("papermill", NOTEBOOK, out, *options(**parameters), check=False)
    assert done.returncode == 1
    line = last_line(done.stderr)
    assert sentence in line and line.startswith("Refused: "), done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("seed*.json"))


def test_no_data_and_no_network(call, tmp_path):
    parameters = options(
        dataset="mnist", data_root=tmp_path / "data", results_root=tmp_path / "results"
    )
    # an address that nothing listens at stands for a cut cable
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    env = dict.fromkeys(names, "http://127.0.0.1:9")
    env |= dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost")
    out = tmp_path / "out.ipynb"
    done = call("papermill", NOTEBOOK, out, *parameters, check=False, env=env)
    assert done.returncode == 1
    line = last_line(done.stderr)
    assert f"mnist is not in {tmp_path / 'data'}" in line, done.stderr[-2000:]
    assert "put mnist.npz there, or set ZEROINIT_DATA" in line, done.stderr[-2000:]
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_benchmark(call, tmp_path):
    """With few images: every part runs, and the figure can read the file."""
    results = tmp_path / "results"
    quick = options(quick=True, threads=1, results_root=results)
    call("papermill", "nbs/benchmark.ipynb", tmp_path / "out.ipynb", *quick)
    (path,) = results.glob("benchmarks/*-1-threads.json")
    found = json.loads(path.read_text())
    assert found["quick"]
    assert {row["what"] for row in found["table"]} >= {
        "fnn, mnist: epoch, auto",
        "cnn, cifar10: step",
        "start of a run in a warm process",
    }
    for row in found["table"]:
        assert row["ours"] > 0 and (row["plain"] is None or row["plain"] > 0), row
    assert {row["what"] for row in found["growth"]} == set(found["slopes"])
    assert sum(row["gpu_hours"] for row in found["paper"]) > 1

    drawn = options(results_root=results, images=tmp_path)
    call("papermill", "nbs/figures/fig_speed.ipynb", tmp_path / "fig.ipynb", *drawn)
    assert (tmp_path / "fig_speed.png").stat().st_size > 20_000
