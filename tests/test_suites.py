"""Suites that are killed, stopped, put to sleep, driven twice at once, or find no room: the same command completes them, and the records are those of an undisturbed suite."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import kills
import psutil
import pytest
import torch

import zeroinit
from zeroinit.data.datasets import load, write_npz

TESTS = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def tiny(tree):
    """Start the command with the small suite, in a session of its own; it is ended with the test."""
    started = []

    def run(*args, env=None, python=(sys.executable,), **kw):
        env = {
            **os.environ,
            "PYTHONPATH": str(tree),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            **(env or {}),
        }
        kw = (
            dict(
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            | kw
        )
        started.append(
            subprocess.Popen(
                [*python, str(TESTS / "tiny.py"), *map(str, args)], cwd=tree, env=env, **kw
            )
        )
        return started[-1]

    yield run
    for p in started:
        if p.poll() is None:
            os.killpg(p.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def go(tiny):
    """The arguments of a run in a folder; without notebooks, for they cost time and change nothing, as a test below shows."""

    def run(folder, *more, **kw):
        return tiny(
            "run",
            "tiny",
            "--jobs",
            "2",
            "--device",
            "cpu",
            "--no-notebook",
            "--results-root",
            Path(folder) / "results",
            *more,
            **kw,
        )

    return run


@pytest.fixture(scope="module")
def calm(go, tmp_path_factory):
    """What an undisturbed suite leaves."""
    folder = tmp_path_factory.mktemp("calm")
    done = go(folder)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, out + err
    return {name: kills.numbers(path) for name, path in kills.records(folder / "results").items()}


@pytest.fixture
def completes(go, calm, tmp_path):
    """The same command completes the suite, and nothing tells its records from those of a calm one."""

    def check(*more):
        done = go(tmp_path, *more)
        out, err = done.communicate(timeout=300)
        assert done.returncode == 0, out + err
        left = kills.records(tmp_path / "results")
        assert {name: kills.numbers(path) for name, path in left.items()} == calm
        assert not [p for p in tmp_path.rglob("*") if p.suffix in (".tmp", ".safetensors")]
        return out

    return check


def line(child, start):
    """Wait for a line that begins so."""
    for said in child.stdout:
        if said.startswith(start):
            return said
    raise AssertionError(f"no line {start!r}; {child.stderr.read()}")


def logs(folder):
    return {
        p: [x.split()[1] for x in p.read_text().splitlines() if x[:2] == "20"]
        for p in sorted(Path(folder).glob(".runs/**/*.log"))
    }


def ended(group):
    """Is nobody of a session left?"""
    for _ in range(100):
        alive = [
            p
            for p in psutil.process_iter(["pid", "status"])
            if p.info["status"] != psutil.STATUS_ZOMBIE and _session(p.info["pid"]) == group
        ]
        if not alive:
            return True
        time.sleep(0.1)
    return False


def _session(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def begun(folder, epochs=5):
    """Wait until a run under way has some epochs behind it."""
    for _ in range(600):
        if any(x[-1] == "epoch" and x.count("epoch") >= epochs for x in logs(folder).values()):
            return
        time.sleep(0.05)
    raise AssertionError("no run came so far")


@pytest.mark.parametrize(
    "how, code",
    [
        ("Ctrl-C in a terminal", 130),
        ("SIGINT to the driver", 130),
        ("SIGTERM", 143),
        ("SIGTERM to everybody", 143),
    ],
)
def test_asked_once_it_finishes_the_epoch(how, code, go, completes, tmp_path):
    child = go(tmp_path)
    line(child, "1/6")
    begun(tmp_path)
    sent = signal.SIGTERM if "SIGTERM" in how else signal.SIGINT
    if "terminal" in how or "everybody" in how:
        os.killpg(child.pid, sent)
    else:
        child.send_signal(sent)
    out, err = child.communicate(timeout=60)
    assert (
        child.returncode == code
        and "finishing the running epochs" in err
        and "Traceback" not in err
    ), err
    assert ", stopped, after epoch " in out or ": stopped, after epoch " in out, out
    assert ended(child.pid)
    stopped = [x for x in logs(tmp_path).values() if x[-1] == "stopped"]
    assert stopped and all(x[-2] == "epoch" for x in stopped)
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(stopped)
    completes()
    assert {x.count("epoch") for x in logs(tmp_path).values()} == {
        40
    }  # not one epoch was trained twice


def test_asked_twice_it_stops_now(go, completes, tmp_path):
    child = go(tmp_path)
    line(child, "1/6")
    begun(tmp_path)
    nurseries, workers = kills.family(child)
    for w in workers:  # whatever they are asked, they do not finish an epoch
        w.suspend()
    child.send_signal(signal.SIGINT)
    assert (
        child.stderr.readline() == "\n"
        and "finishing the running epochs; once more stops at once" in child.stderr.readline()
    )
    time.sleep(0.5)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (
        child.returncode == 130 and err == "zeroinit: stopped; the same command goes on from here\n"
    ), err
    assert ended(child.pid)
    completes()


def test_ctrl_c_while_it_starts(go, completes, tmp_path):
    child = go(tmp_path)
    line(child, "tiny: 6 runs")
    time.sleep(0.3)
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130 and "Traceback" not in err, err
    assert ended(child.pid) and kills.records(tmp_path / "results") == {}
    completes()


@pytest.mark.parametrize("who", ["worker", "nursery", "driver", "everybody"])
def test_kill_9(who, go, completes, tmp_path):
    child = go(tmp_path)
    line(child, "1/6")
    begun(tmp_path)
    nurseries, workers = kills.family(child)
    assert len(nurseries) == 1 and len(workers) == 2
    for p in {
        "worker": workers[:1],
        "nursery": nurseries,
        "driver": [child],
        "everybody": [child, *nurseries, *workers],
    }[who]:
        os.kill(p.pid, signal.SIGKILL)
    out, err = child.communicate(timeout=300)
    if who in ("worker", "nursery"):  # the suite does not even stop
        assert child.returncode == 0 and len(kills.records(tmp_path / "results")) == 6, out + err
    else:
        assert child.returncode == -9 and ended(child.pid)
        time.sleep(1)
        assert len(kills.records(tmp_path / "results")) < 6  # nothing goes on behind our back
    completes()
    again = sum(x.count("epoch") for x in logs(tmp_path).values()) - 6 * 40
    assert -2 <= again <= 4, again  # each of the two runs lost its running epoch at most


def test_a_run_that_dies_every_time_fails_and_the_others_go_on(go, completes, tmp_path):
    child = go(tmp_path)
    hunted = "zero"  # every worker that is at this run is killed
    killed = set()
    while child.poll() is None:
        for lock, events in logs(tmp_path).items():
            if (
                hunted in str(lock)
                and "seed0" in lock.name
                and events[-1] == "epoch"
                and len(killed) < 3
            ):
                pid = int(lock.read_text().rpartition(" process ")[2].split(",")[0])
                if pid not in killed:  # the lock names the dead until the next takes it
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        time.sleep(0.05)
    out, err = child.communicate()
    assert len(killed) == 3 and child.returncode == 1, out + err
    assert (
        "failed, its process died 3 times, perhaps for want of memory" in out
        and "; 1 failed" in out
    ), out
    assert len(kills.records(tmp_path / "results")) == 5
    completes()


def test_asleep(go, completes, tmp_path):
    """Every process of the suite stops, as when a lid closes, and goes on later."""
    child = go(tmp_path)
    line(child, "1/6")
    os.killpg(child.pid, signal.SIGSTOP)
    time.sleep(4)
    os.killpg(child.pid, signal.SIGCONT)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, out + err
    completes()


def test_two_drivers_share_a_suite(go, completes, tmp_path):
    both = [go(tmp_path), go(tmp_path)]
    said = [p.communicate(timeout=300) for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert (
        sum(out.count(": done, test accuracy") for out, _ in said) == 6
    )  # each run by one of them
    assert not any("not begun" in out for out, _ in said)  # what the other did is done
    assert all(
        events.count("start") == events.count("done") == 1 and events.count("epoch") == 40
        for events in logs(tmp_path).values()
    )
    completes()


def test_full_disk(tree, go, completes, tmp_path):
    """A limit on the size of files stands for a full disk; one sentence, not six."""
    limited = "import resource, signal, runpy, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    args = [
        sys.executable,
        "-c",
        limited,
        str(TESTS / "tiny.py"),
        "run",
        "tiny",
        "--jobs",
        "2",
        "--device",
        "cpu",
        "--no-notebook",
        "--results-root",
        str(tmp_path / "results"),
    ]
    done = subprocess.run(
        args,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert (
        1 <= done.stdout.count("could not write") <= 2
        and "free some space" in done.stdout
        and "unwritable" in done.stdout.splitlines()[-1]
    ), done.stdout
    assert kills.records(tmp_path / "results") == {} and not list(tmp_path.rglob("*.safetensors"))
    completes()


def test_results_that_cannot_be_written(go, tmp_path):
    for root in ("/proc/zeroinit", tmp_path / "file"):
        (tmp_path / "file").touch()
        done = go(tmp_path, "--results-root", root)
        out, err = done.communicate(timeout=60)
        assert (
            done.returncode == 2
            and f"could not write in {root}" in err
            and len(err.splitlines()) == 1
        ), out + err


def test_damaged_and_edited_records_are_named_set_aside_and_run_again(
    tiny, go, calm, completes, tmp_path
):
    completes()
    cut, edited, *_ = kills.records(tmp_path / "results").values()
    cut.write_bytes(cut.read_bytes()[:300])
    edited.write_text(edited.read_text().replace('"test_acc":0.', '"test_acc":0.9'))
    plan, _ = tiny("plan", "tiny", "--results-root", tmp_path / "results").communicate()
    assert "6 runs, 4 done" in plan, plan
    out = completes()
    for path in (cut, edited):
        assert f"note: {path} is no complete record" in out and "set aside as" in out, out
    aside = sorted((tmp_path / ".runs/aside").rglob("*.json"))
    assert len(aside) == 2 and b"0.9" in aside[-1].read_bytes() + aside[0].read_bytes()


def test_records_of_an_older_version_are_read_and_marked(tree, go, calm, completes, tmp_path):
    """A record as version 0.1.0 wrote it, without a seal, is kept, and the frame says which it is."""
    completes()
    path = next(iter(kills.records(tmp_path / "results").values()))
    r = {k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"}
    r["env"]["zeroinit"] = "0.1.0"
    path.write_text(json.dumps(r))
    before = path.read_bytes()
    assert "tiny: 6 runs, 6 done, 0 to do" in completes() and path.read_bytes() == before
    code = f"from zeroinit.experiments.frames import read; f = read({str(tmp_path / 'results')!r}); print(f.groupby('zeroinit').older.agg(['sum', 'size']).to_dict('index'))"
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    assert said.stdout.strip() == str(
        {"0.1.0": {"sum": 40, "size": 40}, zeroinit.__version__: {"sum": 0, "size": 200}}
    ), said.stdout + said.stderr


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder with torch, torchvision, pandas and what they need, and nothing else: python -S with this as its path is a bare machine."""
    folder, todo, seen = tmp_path_factory.mktemp("bare"), ["torch", "torchvision", "pandas"], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            dist = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        todo += [
            re.match(r"[\w.-]+", r)[0].lower() for r in dist.requires or [] if "extra ==" not in r
        ]
        for top in {f.parts[0] for f in dist.files if f.parts[0] != ".."}:
            if not (folder / top).exists():
                (folder / top).symlink_to(dist.locate_file(top))
    return folder


def test_a_bare_machine_leaves_the_same_records(tree, tiny, bare, tmp_path):
    """Where there is little more than torch, the same records; a checkpoint from there can be gone on from here."""
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
    env = dict(ZEROINIT_DATA=str(tmp_path / "data"))

    def run(place, *more, python=(sys.executable,), **kw):
        return tiny(
            "run",
            "grown",
            "--jobs",
            "2",
            "--device",
            "cpu",
            "--results-root",
            tmp_path / place / "results",
            *more,
            env=env | kw,
            python=python,
        )

    there = dict(python=[sys.executable, "-S"], PYTHONPATH=f"{bare}{os.pathsep}{tree}")
    child = run("bare", **there)
    begun(tmp_path / "bare", 10)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130 and "without notebooks, for papermill is not installed" in out, (
        out + err
    )
    assert len(list((tmp_path / "bare").rglob("*.safetensors"))) == 2 and not kills.records(
        tmp_path / "bare/results"
    )
    done = [run("bare", "--only", "zero"), run("bare", "--only", "bias", **there), run("whole")]
    said = [p.communicate(timeout=300) for p in done]
    assert [p.returncode for p in done] == [0, 0, 0], said
    left, whole = (
        {
            name: kills.numbers(path)
            for name, path in kills.records(tmp_path / place / "results").items()
        }
        for place in ("bare", "whole")
    )
    assert len(left) == 2 and left == whole
    assert {events.count("epoch") for events in logs(tmp_path / "bare").values()} == {100}, (
        said
    )  # gone on from torch's own checkpoint


def test_notebooks_leave_the_same_records_and_themselves(tiny, calm, tmp_path):
    done = tiny(
        "run", "tiny", "--jobs", "2", "--device", "cpu", "--results-root", tmp_path / "results"
    )
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, out + err
    left = kills.records(tmp_path / "results")
    assert {name: kills.numbers(path) for name, path in left.items()} == calm
    for name in left:
        nb = json.loads((tmp_path / ".runs" / name).with_suffix(".ipynb").read_text())
        code = [c for c in nb["cells"] if c["cell_type"] == "code"]
        assert [c["metadata"].get("tags") for c in code[1:3]] == [
            ["parameters"],
            ["injected-parameters"],
        ]  # the first cell is for Colab
        assert any("image/svg+xml" in o.get("data", {}) for c in code for o in c["outputs"])
        assert "epoch 40/40" in "".join(
            "".join(o.get("text", "")) for c in code for o in c["outputs"]
        )
        assert (tmp_path / ".runs" / name).with_suffix(".log").read_text().count(" epoch ") == 40


def test_one_cold_papermill_run_is_the_same(tree, calm, tmp_path):
    """The command of the README, a process of its own, against the workers."""
    args = [
        "papermill",
        "nbs/run_experiment.ipynb",
        str(tmp_path / "out.ipynb"),
        "-p",
        "dataset",
        "digits",
        "-p",
        "init",
        "zero",
        "-p",
        "epochs",
        "40",
        "-p",
        "probe_steps",
        "2",
        "-p",
        "results_root",
        str(tmp_path / "results"),
    ]
    subprocess.run(
        args,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=120,
    )
    ((name, path),) = kills.records(tmp_path / "results").items()
    assert kills.numbers(path) == calm[name]


def test_a_missing_data_set_is_said_once(tiny, tmp_path):
    env = dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:1"
    ) | dict(ZEROINIT_DATA=str(tmp_path / "none"))
    done = tiny(
        "run", "schicho-cifar", "--device", "cpu", "--results-root", tmp_path / "results", env=env
    )
    out, err = done.communicate(timeout=120)
    assert done.returncode == 2 and len(err.splitlines()) == 1 and "cifar10" in err, out + err
    assert "90 to do" in out and "seed" not in out, out  # not one run was begun


def test_parts_make_a_whole(go, completes, tmp_path):
    """What the jobs of a Slurm array do."""
    for k in (1, 2, 3):
        done = go(tmp_path, "--part", f"{k}/3")
        out, err = done.communicate(timeout=120)
        assert done.returncode == 0 and "tiny: 2 runs, 0 done, 2 to do" in out, out + err
    assert "tiny: 6 runs, 6 done, 0 to do" in completes()


def test_seeds_together(go, calm, tmp_path):
    """Three seeds trained as one, killed and stopped on the way, leave a record each: those of seeds by themselves, to the last digits."""
    child = go(tmp_path, "--together", "3")
    begun(tmp_path, 3)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child = go(tmp_path, "--together", "3")
    begun(tmp_path, 8)
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130
    out, err = go(tmp_path, "--together", "3").communicate(timeout=300)
    assert "tiny: 6 runs, 0 done, 6 to do" in out and "6/6" in out and "seed 0 to 2: done" in out, (
        out + err
    )
    for name, path in kills.records(tmp_path / "results").items():
        record, scheme = (
            json.loads(path.read_text()),
            json.loads(path.read_text())["config"]["init"],
        )
        assert (record["env"]["together"], record["env"]["speed"]) == (
            (3, "auto") if scheme == "bias_normal" else (1, "plain")
        ), record["env"]
        if scheme == "zero":
            assert kills.numbers(path) == calm[name]  # equal neurons: one at a time, the plain path
        else:
            assert [r["epoch"] for r in record["history"]] == list(range(1, 41))
            alone = calm[name][3]  # the history of the seed by itself
            assert all(
                abs(a[k] - b[k]) < 1e-3
                for a, b in zip(record["history"], alone, strict=False)
                for k in ("train_loss", "test_loss")
            )
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".tmp", ".safetensors")]


def test_status_while_it_runs(tiny, go, tmp_path):
    child = go(tmp_path)
    line(child, "1/6")
    begun(tmp_path)
    out, _ = tiny("status", "tiny", "--results-root", tmp_path / "results").communicate(timeout=60)
    head, total = (x.split() for x in out.splitlines()[:2])
    told = dict(zip(head, total, strict=False))
    assert (
        int(told["done"]) >= 1
        and int(told["running"]) >= 1
        and float(told["s_per_epoch"]) >= 0
        and told["minutes"] != "?"
    ), out
    assert "running" in out.splitlines()[4] and "/40" in out.splitlines()[4], out
    watched = tiny("status", "tiny", "--results-root", tmp_path / "results", "--watch", "0.5")
    child.communicate(timeout=300)
    out, _ = watched.communicate(timeout=60)  # it ends by itself, when nothing is left
    assert (
        len(out.split("suite ")) > 2
        and dict(zip(head, out.splitlines()[-1].split(), strict=False))["done"] == "6"
    ), out


def test_nothing_is_run_dry(tiny, tmp_path):
    out, _ = tiny("run", "tiny", "--dry-run", "--results-root", tmp_path / "results").communicate(
        timeout=60
    )
    assert len(out.splitlines()) == 6 and not (tmp_path / "results").exists()


def test_random_kills():
    """The script that kills at random, for a while; with 200 kills and more it is there for a reader to run."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "kills.py"), "12", "3"],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0 and "0 records lost, 0 doubled, 0 different" in done.stdout, (
        done.stdout + done.stderr
    )
