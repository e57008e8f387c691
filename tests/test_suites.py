"""Suites that are killed, stopped, suspended or driven twice at once, or whose disk is full.

The same command completes them, and the records are those of an undisturbed suite.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import kills
import numpy as np
import psutil
import pytest
import torch

import zeroinit
from zeroinit.data.datasets import arrays_digest, load, write_npz

TESTS = Path(__file__).resolve().parent
TOP = TESTS.parent
EPOCHS = 40  # of a run of the small suite
ON_CPU = ("--jobs", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def tiny(tree):
    """Start the command with the small suites, in a session of its own; it ends with the test."""
    started = []

    def run(*args, env=None, python=(sys.executable,), **popen):
        own_env = {"PYTHONPATH": str(tree), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        settings = dict(
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        child = subprocess.Popen(
            [*python, str(TESTS / "tiny.py"), *map(str, args)],
            cwd=tree,
            env=os.environ | own_env | (env or {}),
            **(settings | popen),
        )
        started.append(child)
        return child

    yield run
    for child in started:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def run_tiny(tiny):
    """Start the small suite in a folder, without notebooks.

    They take time and change nothing, as a test below shows.
    """

    def run(folder, *more):
        results = Path(folder) / "results"
        return tiny("run", "tiny", *ON_CPU, "--no-notebook", "--results-root", results, *more)

    return run


@pytest.fixture(scope="module")
def expected(run_tiny, tmp_path_factory):
    """The numbers of an undisturbed suite, by record."""
    folder = tmp_path_factory.mktemp("calm")
    finish(run_tiny(folder))
    return all_numbers(folder / "results")


@pytest.fixture
def complete(run_tiny, expected, tmp_path):
    """Run the suite to its end, and check that its records are those of an undisturbed one."""

    def check(*more):
        out = finish(run_tiny(tmp_path, *more))
        assert all_numbers(tmp_path / "results") == expected
        assert temporary_files(tmp_path) == []
        return out

    return check


def finish(child, timeout=300):
    """Wait for a command that succeeds; returns what it printed."""
    out, err = child.communicate(timeout=timeout)
    assert child.returncode == 0, out + err
    return out


def all_numbers(root):
    return {name: kills.numbers(path) for name, path in kills.records(root).items()}


def temporary_files(folder):
    return [path for path in folder.rglob("*") if path.suffix in (".tmp", ".safetensors")]


def checkpoints(folder):
    return list(Path(folder).rglob("*.safetensors"))


def wait_for_line(child, start):
    """Wait for a line that begins like this."""
    for line in child.stdout:
        if line.startswith(start):
            return line
    raise AssertionError(f"no line {start!r}; {child.stderr.read()}")


def events(folder):
    """Log file -> names of its events."""
    found = {}
    for log in sorted(Path(folder).glob(".runs/**/*.log")):
        lines = [line for line in log.read_text().splitlines() if line[:2] == "20"]
        found[log] = [line.split()[1] for line in lines]
    return found


def has_ended(session):
    """Whether every process of a session ends within ten seconds."""
    for _ in range(100):
        if not any(session_of(process) == session for process in psutil.process_iter()):
            return True
        time.sleep(0.1)
    return False


def session_of(process):
    """The session of a process; None for one that has ended."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return os.getsid(process.pid)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return None


def wait_for_epochs(folder, epochs=5):
    """Wait until a run that is under way has trained some epochs."""
    for _ in range(600):
        for names in events(folder).values():
            if names[-1:] == ["epoch"] and names.count("epoch") >= epochs:
                return
        time.sleep(0.05)
    raise AssertionError(f"no run trained {epochs} epochs")


@pytest.mark.parametrize(
    "how, code",
    [
        ("Ctrl-C in a terminal", 130),
        pytest.param("SIGINT to the driver", 130, marks=pytest.mark.slow),
        pytest.param("SIGTERM", 143, marks=pytest.mark.slow),
        pytest.param("SIGTERM to everybody", 143, marks=pytest.mark.slow),
    ],
)
def test_one_request_ends_after_the_epoch(how, code, run_tiny, complete, tmp_path):
    child = run_tiny(tmp_path)
    wait_for_line(child, "1/6")
    wait_for_epochs(tmp_path)
    number = signal.SIGTERM if "SIGTERM" in how else signal.SIGINT
    if "terminal" in how or "everybody" in how:
        os.killpg(child.pid, number)
    else:
        child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == code, err
    assert "finishing the running epochs" in err and "Traceback" not in err, err
    assert ", stopped, after epoch " in out or ": stopped, after epoch " in out, out
    assert has_ended(child.pid)
    stopped = [names for names in events(tmp_path).values() if names[-1] == "stopped"]
    assert stopped and all(names[-2] == "epoch" for names in stopped)
    assert len(checkpoints(tmp_path)) == len(stopped)
    complete()
    # not one epoch was trained twice
    assert {names.count("epoch") for names in events(tmp_path).values()} == {EPOCHS}


@pytest.mark.slow
def test_two_requests_stop_now(run_tiny, complete, tmp_path):
    child = run_tiny(tmp_path)
    wait_for_line(child, "1/6")
    wait_for_epochs(tmp_path)
    _, workers = kills.family(child)
    for worker in workers:  # so none of them finishes its epoch
        worker.suspend()
    child.send_signal(signal.SIGINT)
    assert child.stderr.readline() == "\n"
    message = "finishing the running epochs; once more stops at once"
    assert message in child.stderr.readline()
    time.sleep(0.5)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    assert child.returncode == 130, err
    assert err == "zeroinit: stopped; the same command goes on from here\n"
    assert has_ended(child.pid)
    complete()


@pytest.mark.slow
def test_ctrl_c_while_it_starts(run_tiny, complete, tmp_path):
    child = run_tiny(tmp_path)
    wait_for_line(child, "tiny: 6 runs")
    time.sleep(0.3)
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130 and "Traceback" not in err, err
    assert has_ended(child.pid) and kills.records(tmp_path / "results") == {}
    complete()


@pytest.mark.slow
@pytest.mark.parametrize("who", ["worker", "nursery", "driver", "everybody"])
def test_kill_9(who, run_tiny, complete, tmp_path):
    child = run_tiny(tmp_path)
    wait_for_line(child, "1/6")
    wait_for_epochs(tmp_path)
    forkservers, workers = kills.family(child)
    assert len(forkservers) == 1 and len(workers) == 2
    victims = {
        "worker": workers[:1],
        "nursery": forkservers,
        "driver": [child],
        "everybody": [child, *forkservers, *workers],
    }[who]
    for process in victims:
        os.kill(process.pid, signal.SIGKILL)
    out, err = child.communicate(timeout=300)
    if who in ("worker", "nursery"):  # the suite does not even stop
        assert child.returncode == 0 and len(kills.records(tmp_path / "results")) == 6, out + err
    else:
        assert child.returncode == -9 and has_ended(child.pid)
        time.sleep(1)
        assert len(kills.records(tmp_path / "results")) < 6  # no process is left that goes on
    complete()
    trained = sum(names.count("epoch") for names in events(tmp_path).values())
    twice = trained - 6 * EPOCHS
    assert -2 <= twice <= 4, twice  # each of the two runs lost its running epoch at most


@pytest.mark.slow
def test_a_run_that_dies_every_time_fails_and_the_others_go_on(run_tiny, complete, tmp_path):
    child = run_tiny(tmp_path)
    killed = set()
    while child.poll() is None:
        # kill every worker that trains seed 0 of the zero network
        for log, names in events(tmp_path).items():
            is_hunted = "zero" in str(log) and "seed0" in log.name
            if is_hunted and names[-1:] == ["epoch"] and len(killed) < 3:
                pid = int(log.read_text().rpartition(" process ")[2].split(",")[0])
                if pid not in killed:  # the log names the dead until the next process starts
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        time.sleep(0.05)
    out, err = child.communicate()
    assert len(killed) == 3 and child.returncode == 1, out + err
    assert "failed, its process died 3 times (out of memory?)" in out, out
    assert "; 1 failed" in out, out
    assert len(kills.records(tmp_path / "results")) == 5
    complete()


@pytest.mark.slow
def test_suspended(run_tiny, complete, tmp_path):
    """Every process of the suite stops, as when a lid closes, and goes on later."""
    child = run_tiny(tmp_path)
    wait_for_line(child, "1/6")
    os.killpg(child.pid, signal.SIGSTOP)
    time.sleep(4)
    os.killpg(child.pid, signal.SIGCONT)
    finish(child)
    complete()


@pytest.mark.slow
def test_two_drivers_share_a_suite(run_tiny, complete, tmp_path):
    drivers = [run_tiny(tmp_path), run_tiny(tmp_path)]
    outputs = [finish(driver) for driver in drivers]
    # each run is done by one of them
    assert sum(out.count(": done, test accuracy") for out in outputs) == 6
    assert not any("not begun" in out for out in outputs)  # what the other did counts as done
    for names in events(tmp_path).values():
        assert (names.count("start"), names.count("done")) == (1, 1)
        assert names.count("epoch") == EPOCHS
    complete()


LIMIT_FILES = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_python(tree, *args, timeout=120):
    """Run Python in the copied tree; returns the finished process."""
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.slow
def test_full_disk(tree, complete, tmp_path):
    """A limit on the size of files stands for a full disk; one sentence, not six."""
    results = tmp_path / "results"
    command = ["run", "tiny", *ON_CPU, "--no-notebook", "--results-root", results]
    done = run_python(tree, "-c", LIMIT_FILES, TESTS / "tiny.py", *command)
    assert done.returncode == 2, done.stdout + done.stderr
    assert 1 <= done.stdout.count("could not write") <= 2, done.stdout
    assert "free some space" in done.stdout, done.stdout
    assert "unwritable" in done.stdout.splitlines()[-1], done.stdout
    assert kills.records(results) == {} and checkpoints(tmp_path) == []
    complete()


def test_results_that_cannot_be_written(run_tiny, tmp_path):
    (tmp_path / "file").touch()
    for root in ("/proc/zeroinit", tmp_path / "file"):
        child = run_tiny(tmp_path, "--results-root", root)
        out, err = child.communicate(timeout=60)
        assert child.returncode == 2, out + err
        assert f"could not write in {root}" in err and len(err.splitlines()) == 1, out + err


@pytest.mark.slow
def test_damaged_and_edited_records_are_named_set_aside_and_run_again(
    tiny, expected, complete, tmp_path
):
    complete()
    results = tmp_path / "results"
    cut, edited, *_ = kills.records(results).values()
    cut.write_bytes(cut.read_bytes()[:300])
    edited.write_text(edited.read_text().replace('"test_acc":0.', '"test_acc":0.9'))
    plan, _ = tiny("plan", "tiny", "--results-root", results).communicate()
    assert "6 runs, 4 done" in plan, plan
    out = complete()
    for path in (cut, edited):
        note = f"note: {path} is damaged: it is no complete record"
        assert note in out and "set aside as" in out, out
    aside = sorted((tmp_path / ".runs/aside").rglob("*.json"))
    assert len(aside) == 2
    assert any(b"0.9" in path.read_bytes() for path in aside)


OLDER_ROWS = """
import sys
from zeroinit.experiments.frames import read

frame = read(sys.argv[1])
print(frame.groupby("zeroinit").older.agg(["sum", "size"]).to_dict("index"))
"""


@pytest.mark.slow
def test_records_of_an_older_version_are_read_and_marked(tree, expected, complete, tmp_path):
    """A known record of version 0.1.0 is marked; another one that claims to be of it is damaged."""
    complete()
    results = tmp_path / "results"
    path = next(iter(kills.records(results).values()))
    record = json.loads(path.read_text())
    del record["sha256"]
    record["env"]["zeroinit"] = "0.1.0"
    path.write_text(json.dumps(record))
    assert f"{path} is damaged: it is no complete record (its seal is missing)" in complete()

    lines = (tree / "zeroinit/unsealed_records.csv").read_text().splitlines()
    known = lines[1].split(",")[1]
    (results / known).parent.mkdir(parents=True)
    shutil.copy(tree / "results" / known, results / known)
    done = run_python(tree, "-c", OLDER_ROWS, results)
    epochs = len(json.loads((results / known).read_text())["history"])
    rows = {
        "0.1.0": {"sum": epochs, "size": epochs},
        zeroinit.__version__: {"sum": 0, "size": 6 * EPOCHS},
    }
    assert done.stdout.strip() == str(rows), done.stdout + done.stderr


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder with torch, torchvision, pandas and what they need, and nothing else.

    `python -S` with this folder as its path stands for a bare machine.
    """
    folder = tmp_path_factory.mktemp("bare")
    todo = ["torch", "torchvision", "pandas"]
    linked = set()
    while todo:
        name = todo.pop()
        if name in linked:
            continue
        linked.add(name)
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        required = [r for r in package.requires or [] if "extra ==" not in r]
        todo += [re.match(r"[\w.-]+", r)[0].lower() for r in required]
        for top in {file.parts[0] for file in package.files} - {".."}:
            if not (folder / top).exists():
                (folder / top).symlink_to(package.locate_file(top))
    return folder


def write_small_mnist(path):
    """600 training and 100 test images, grown from the digits to the size of MNIST's."""
    digits = load("digits")
    images = torch.nn.functional.interpolate(digits.x_train[:700].float(), size=28)
    images = images.byte()[:, 0].numpy()
    arrays = dict(
        x_train=images[:600],
        y_train=digits.y_train[:600].numpy(),
        x_test=images[600:],
        y_test=digits.y_train[600:700].numpy(),
    )
    # as `load` keeps what it has read from an archive
    write_npz(path, arrays | dict(checked=np.array(arrays_digest(arrays))))


@pytest.mark.slow
def test_a_bare_machine_leaves_the_same_records(tree, tiny, bare, tmp_path):
    """With little more than torch: the same records, and a checkpoint that others can continue."""
    write_small_mnist(tmp_path / "data/mnist.npz")
    data = dict(ZEROINIT_DATA=str(tmp_path / "data"))

    def run(place, *more, **popen):
        results = tmp_path / place / "results"
        env = data | popen.pop("env", {})
        return tiny("run", "grown", *ON_CPU, "--results-root", results, *more, env=env, **popen)

    def run_bare(*more):
        env = dict(PYTHONPATH=f"{bare}{os.pathsep}{tree}")
        return run("bare", *more, python=[sys.executable, "-S"], env=env)

    child = run_bare()
    wait_for_epochs(tmp_path / "bare", 10)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, out + err
    assert "without notebooks, for papermill is not installed" in out, out + err
    assert len(checkpoints(tmp_path / "bare")) == 2
    assert kills.records(tmp_path / "bare/results") == {}

    for child in [run("bare", "--only", "zero"), run_bare("--only", "bias"), run("whole")]:
        finish(child)
    left = all_numbers(tmp_path / "bare/results")
    assert len(left) == 2 and left == all_numbers(tmp_path / "whole/results")
    # the run goes on from torch's own checkpoint
    assert {names.count("epoch") for names in events(tmp_path / "bare").values()} == {100}


@pytest.mark.slow
def test_two_archives_on_a_bare_machine(bare, tmp_path):
    """The commands of docs/offline.md, with a smaller run, where git and papermill are missing."""
    if not (TOP / ".git").exists():
        pytest.skip("this is no git checkout")
    page = (TOP / "docs/offline.md").read_text()
    pack, run, _ = re.findall(r"^```sh\n(.*?)^```", page, re.S | re.M)
    clone, machine, path = tmp_path / "clone", tmp_path / "machine", tmp_path / "bin"
    for folder in (machine, path):
        folder.mkdir()
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{TOP}", clone], check=True)
    data = tmp_path / "data"
    write_small_mnist(data / "mnist.npz")
    pack, run = (text.replace("cifar10.npz", "mnist.npz") for text in (pack, run))
    env = os.environ | dict(ZEROINIT_DATA=str(data))
    subprocess.run(["sh", "-ec", pack], cwd=clone, env=env, check=True)
    for archive in ("zeroinit.tar.gz", "data.tar.gz"):
        (clone / archive).rename(machine / archive)

    for name in ("tar", "gzip", "mkdir", "sh"):
        (path / name).symlink_to(shutil.which(name))
    (path / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (path / "python3").chmod(0o755)
    longer = "schicho-cifar --only 'cnn default published'"
    smaller = "schicho-mnist --only 'logistic default clean seed 0$'"
    assert longer in run
    env = dict(PATH=str(path), PYTHONPATH=str(bare), HOME=str(tmp_path), OMP_NUM_THREADS="1")
    run = run.replace(longer, f"{smaller} --device cpu --results-root ../records")
    settings = dict(cwd=machine, env=env, capture_output=True, text=True)
    done = subprocess.run(["sh", "-ec", run], check=False, **settings)
    assert done.returncode == 0, done.stdout + done.stderr

    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=clone, text=True).strip()
    (record,) = (machine / "records").glob("*/*/*/seed0.json")
    env = json.loads(record.read_text())["env"]
    assert (env["git"], env["dirty"]) == (commit, None)
    assert (machine / "data/mnist.npz").exists() and (machine / "records.tar.gz").exists()


def test_notebooks_leave_the_same_records_and_themselves(tiny, expected, tmp_path):
    finish(tiny("run", "tiny", *ON_CPU, "--results-root", tmp_path / "results"))
    assert all_numbers(tmp_path / "results") == expected
    for name in expected:
        executed = (tmp_path / ".runs" / name).with_suffix(".ipynb")
        notebook = json.loads(executed.read_text())
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        tags = [cell["metadata"].get("tags") for cell in code[1:3]]  # the first is for Colab
        assert tags == [["parameters"], ["injected-parameters"]]
        outputs = []
        for cell in code:
            outputs += cell["outputs"]
        assert any("image/svg+xml" in output.get("data", {}) for output in outputs)
        text = "".join("".join(output.get("text", "")) for output in outputs)
        assert f"{name}: test accuracy" in text
        assert executed.with_suffix(".log").read_text().count(" epoch ") == EPOCHS


@pytest.mark.slow
def test_one_cold_papermill_run_is_the_same(tree, expected, tmp_path):
    """The command of the README, in a process of its own, leaves what the workers leave."""
    settings = dict(
        dataset="digits",
        init="zero",
        epochs=EPOCHS,
        probe_steps=2,
        results_root=tmp_path / "results",
    )
    args = ["papermill", "nbs/run_experiment.ipynb", str(tmp_path / "out.ipynb")]
    for name, value in settings.items():
        args += ["-p", name, str(value)]
    subprocess.run(
        args,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=120,
    )
    ((name, path),) = kills.records(tmp_path / "results").items()
    assert kills.numbers(path) == expected[name]


def test_a_missing_data_set_is_reported_once(tiny, tmp_path):
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    env = dict.fromkeys(proxies, "http://127.0.0.1:1")
    env["ZEROINIT_DATA"] = str(tmp_path / "none")
    results = tmp_path / "results"
    child = tiny("run", "schicho-cifar", "--device", "cpu", "--results-root", results, env=env)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 2, out + err
    assert len(err.splitlines()) == 1 and "cifar10" in err, out + err
    assert "90 to do" in out and "seed" not in out, out  # no run was begun


@pytest.mark.slow
def test_parts_make_a_whole(run_tiny, complete, tmp_path):
    """What the jobs of a Slurm array do."""
    for k in (1, 2, 3):
        out = finish(run_tiny(tmp_path, "--part", f"{k}/3"), timeout=120)
        assert "tiny: 2 runs, 0 done, 2 to do" in out, out
    assert "tiny: 6 runs, 6 done, 0 to do" in complete()


@pytest.mark.slow
def test_seeds_together(run_tiny, expected, tmp_path):
    """Three seeds trained as one, killed and stopped on the way, leave a record each: those of
    seeds by themselves, up to the last digits."""
    child = run_tiny(tmp_path, "--together", "3")
    wait_for_epochs(tmp_path, 3)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child = run_tiny(tmp_path, "--together", "3")
    wait_for_epochs(tmp_path, 8)
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130
    out, err = run_tiny(tmp_path, "--together", "3").communicate(timeout=300)
    assert "tiny: 6 runs, 0 done, 6 to do" in out, out + err
    assert "6/6" in out and "seed 0 to 2: done" in out, out + err
    for name, path in kills.records(tmp_path / "results").items():
        record = json.loads(path.read_text())
        computed = record["env"]["together"], record["env"]["speed"]
        if record["config"]["init"] == "zero":  # equal neurons: one at a time, the plain path
            assert computed == (1, "plain"), record["env"]
            assert kills.numbers(path) == expected[name]
        else:
            assert computed == (3, "auto"), record["env"]
            _, _, _, history_alone, _ = expected[name]
            check_close_histories(record["history"], history_alone)
    assert temporary_files(tmp_path) == []


def check_close_histories(history, expected_history):
    """All epochs are there, and the losses are equal up to rounding."""
    assert [row["epoch"] for row in history] == list(range(1, EPOCHS + 1))
    for row, expected_row in zip(history, expected_history, strict=True):
        for name in ("train_loss", "test_loss"):
            assert abs(row[name] - expected_row[name]) < 1e-3


@pytest.mark.slow
def test_status_while_it_runs(tiny, run_tiny, tmp_path):
    status = ("status", "tiny", "--results-root", tmp_path / "results")
    child = run_tiny(tmp_path)
    wait_for_line(child, "1/6")
    wait_for_epochs(tmp_path)
    out, _ = tiny(*status).communicate(timeout=60)
    header, values = (line.split() for line in out.splitlines()[:2])
    total = dict(zip(header, values, strict=True))
    assert int(total["done"]) >= 1 and int(total["running"]) >= 1, out
    assert float(total["s_per_epoch"]) >= 0 and total["minutes"] != "?", out
    first_run = out.splitlines()[4]
    assert "running" in first_run and f"/{EPOCHS}" in first_run, out

    watched = tiny(*status, "--watch", "0.5")
    child.communicate(timeout=300)
    out, _ = watched.communicate(timeout=60)  # it ends by itself, when nothing is left
    assert len(out.split("suite ")) > 2, out
    last = dict(zip(header, out.splitlines()[-1].split(), strict=True))
    assert last["done"] == "6", out


def test_nothing_is_run_dry(tiny, tmp_path):
    results = tmp_path / "results"
    out, _ = tiny("run", "tiny", "--dry-run", "--results-root", results).communicate(timeout=60)
    assert len(out.splitlines()) == 6 and not results.exists()


@pytest.mark.slow
@pytest.mark.parametrize("how, count", [("random", 12), ("placed", 10), ("signals", 15)])
def test_kills(how, count):
    """The script of all kinds of kills, for a while; a reader can run it with 200 and more."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "kills.py"), str(count), "3", "--how", how],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 records lost, 0 doubled, 0 different" in done.stdout, done.stdout + done.stderr
