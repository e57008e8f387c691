"""Whatever a user gives as a parameter is converted or refused in one sentence.

Nothing is ignored, nothing ends in a traceback, and a folder has one name.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from zeroinit.basics.errors import Refused
from zeroinit.experiments.options import OPTIONS
from zeroinit.experiments.records import results_path, run_path
from zeroinit.experiments.requests import request
from zeroinit.experiments.resolve import resolve
from zeroinit.experiments.runner import run
from zeroinit.publish.cli import main
from zeroinit.sweep.driver import list_runs, run_suite

ONE_EPOCH = dict(dataset="digits", epochs=1, train_size=32, eval_size=20, probe_steps=1)

# ------------------------------------------------------------------- values of other types

CONVERTED = [
    ("epochs", np.int64(2), 2),
    ("epochs", np.float32(2), 2),
    ("epochs", np.array(2), 2),
    ("epochs", torch.tensor(2), 2),
    ("epochs", np.str_("2"), 2),
    ("epochs", Decimal(2), 2),
    ("epochs", Fraction(2), 2),
    ("lr", np.float64(0.5), 0.5),
    ("lr", np.float32(0.5), 0.5),
    ("lr", np.int8(1), 1.0),
    ("reshuffle", np.bool_(True), True),
    ("reshuffle", np.str_("false"), False),
    ("force", np.bool_(False), False),
    ("seeds", np.uint8(3), 3),
    ("seed", np.int32(3), 3),
    ("model", np.str_("cnn"), "cnn"),
    ("dataset", np.str_("digits"), "digits"),
    ("results_root", Path("some/where"), "some/where"),
    ("data_root", Path("/data"), "/data"),
    ("init_args", {"std": np.float64(2)}, {"std": 2.0}),
    ("init_args", {np.str_("std"): np.int64(2)}, {"std": 2.0}),
    ("init_args", {"strict": np.bool_(False)}, {"strict": False}),
]


@pytest.mark.parametrize("name, given, value", CONVERTED)
def test_values_are_converted(name, given, value):
    r = request(dict(dataset="digits") | {name: given})
    found = r.parameters[name]
    assert found == value and type(found) is type(value)
    json.dumps(r.parameters)


Odd = type("Odd", (), {})
ODD = [
    b"x",
    bytearray(b"3"),
    b"3",
    {1, 2},
    frozenset({"a"}),
    [],
    [3],
    (),
    (3,),
    3j,
    np.array([1, 2]),
    np.array(["a"]),
    np.datetime64("2026-01-01"),
    np.complex64(1),
    float("nan"),
    float("inf"),
    10**400,
    "\0",
    "a\0b.npz",
    "~nosuchuser/r",
    "~nosuchuser/r.npz",
    "x" * 300,
    "x" * 300 + ".npz",
    "x" * 100_000,
    "\udcff",
    "\udcff.npz",
    "[" * 100_000,
    '{"a":' * 100_000,
    json,
    print,
    Odd,
    Odd(),
    iter([]),
    range(3),
    memoryview(b"1"),
    torch.zeros(2),
    {"std": [1]},
    {"std": None},
    {"std": {1}},
    {1: 2},
    {b"std": 1},
    {"x" * 300: 1},
    {"std": "x" * 300},
    {"only": "[" * 300},
    {"std": 1e400},
]
# what cannot be told from a proper value, but cannot be followed
PATHS = ("data_root", "results_root")


def deep_list():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_odd_values_are_refused_in_one_sentence(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in [*ODD, deep_list()]:
        if isinstance(value, str) and option.name in (*PATHS, "device"):
            continue  # below
        if option.name == "init_args" and isinstance(value, dict) and value == {}:
            continue
        with pytest.raises(Refused) as caught:
            request(dict(dataset="digits") | {option.name: value})
        sentence = str(caught.value)
        assert "\n" not in sentence and len(sentence) < 3000, sentence[:300]
    assert list(tmp_path.iterdir()) == []


BAD_PATHS = [
    "~nosuchuser/r",
    "a\0b",
    "x" * 300,
    "a/" + "x" * 300 + "/b",
    "/proc/none",
    "/dev/null",
    "/dev/null/x",
    "\udcff",
    "loop/r",
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
@pytest.mark.parametrize("command", ["run", "plan", "status", "dry run", "explorer"])
def test_paths_that_cannot_be(command, path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    words = [command, "demo"] if command != "explorer" else ["explorer", "--out", "e.html"]
    if command == "dry run":
        words = ["run", "demo", "--dry-run"]
    code = main([*words, "--results-root", path])
    error = capsys.readouterr().err
    reads_only = command != "run" and path in ("/proc/none", "/dev/null", "/dev/null/x")
    if reads_only:
        assert code == 0
        return
    assert code == 2 and len(error.splitlines()) == 1, error
    assert error.startswith("zeroinit: ")


@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
def test_run_refuses_paths(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(Refused):
        request(dict(ONE_EPOCH, results_root=path)).run()
    if not path.startswith(("/proc", "/dev")):
        with pytest.raises(Refused):
            run(resolve(**ONE_EPOCH), results_root=path, quiet=True)
    with pytest.raises(Refused):
        request(dict(ONE_EPOCH, dataset=f"{path}.npz"))
    assert [p.name for p in tmp_path.iterdir()] == ["loop"]


def test_misspelt_names_with_values_of_other_types():
    for value in (np.int64(2), Path("a"), {1}, b"2", None, 2):
        with pytest.raises(Refused, match="unknown parameter 'epohcs'"):
            request({"epohcs": value})
    with pytest.raises(Refused, match="unknown parameter 3"):
        request({3: 2})


@pytest.mark.parametrize("name", ["model", "dataset", "init", "device", "data_root"])
def test_an_empty_name_is_not_a_default(name):
    with pytest.raises(Refused, match=f"{name} must be a name or path"):
        request({name: ""})
    if name in ("model", "dataset", "init"):
        with pytest.raises(Refused, match=f"{name} must be a name or path"):
            resolve(**{name: ""})


def test_run_itself_converts(tmp_path):
    (record,) = run(
        resolve(**ONE_EPOCH), np.int64(0), np.int64(1), results_root=tmp_path / "r", quiet=True
    )
    assert type(record["seed"]) is int
    for wrong in (dict(seeds=0), dict(seeds=2**31), dict(seed=-1), dict(seed=b"1")):
        with pytest.raises(Refused):
            run(resolve(**ONE_EPOCH), results_root=tmp_path / "r", quiet=True, **wrong)


def test_results_go_where_a_path_says(tmp_path):
    records = request(dict(ONE_EPOCH, results_root=tmp_path / "mine")).run()
    assert len(records) == len(list((tmp_path / "mine").rglob("seed0.json"))) == 1


# ---------------------------------------------------------------------------- impossible values


@pytest.mark.parametrize(
    "settings, sentence",
    [
        (dict(lr_gamma=-1), "lr_gamma must be a positive number"),
        (dict(lr_gamma=-0.5, lr_step=1), "lr_gamma must be a positive number"),
        (dict(lr_gamma=0), "lr_gamma must be a positive number"),
        (dict(lr_gamma=1e300, lr_step=1), "lr_gamma must be a positive number"),
        (dict(lr_gamma=10, lr_step=1, epochs=1000), "learning rate"),
        (dict(lr=1e39), "lr must be a positive number"),
        (dict(lr_gamma=1e21, lr_step=1, epochs=3), "learning rate"),
        (dict(seeds=2**31), "seeds must be"),
        (dict(seeds=10**6), "seeds must be"),
    ],
)
def test_impossible_numbers(settings, sentence):
    start = time.perf_counter()
    with pytest.raises(Refused, match=sentence):
        request(dict(dataset="digits") | settings)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "settings",
    [
        dict(batch_size=1),
        dict(batch_size=1, eval_mode="train"),
        dict(train_size=1),
        dict(train_size=33, batch_size=32),
        dict(eval_size=1, eval_mode="train"),
    ],
)
def test_batch_norm_cannot_take_one_image(settings, tmp_path):
    given = ONE_EPOCH | dict(model="resnet14", init="default", results_root=tmp_path)
    with pytest.raises(Refused, match="batch norm cannot normalize"):
        request(given | settings).run()


def test_one_image_a_batch_without_batch_norm(tmp_path):
    request(ONE_EPOCH | dict(batch_size=1, results_root=tmp_path)).run()


# ------------------------------------------------------------------------------------ suites


@pytest.mark.parametrize("pattern", [r"(.+)+\d$x", r"(\w+\s?)+#"])
def test_patterns_that_backtrack(pattern):
    soon = patch("zeroinit.sweep.driver.MATCHING_SECONDS", 0.5)
    with soon, pytest.raises(Refused, match="--only .* takes too long"):
        list_runs("demo", pattern)


@pytest.mark.parametrize("pattern", ["(", "(" * 10_000, "a{99999999999}", "[", "(?P<a", "\\"])
def test_patterns_that_are_none(pattern):
    with pytest.raises(Refused, match="regular expression") as caught:
        list_runs("demo", pattern)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("part", ["9" * 5000 + "/" + "9" * 5000, "1/0", "x", "1/2/3", "-1/2"])
def test_parts_that_are_none(part):
    with pytest.raises(Refused, match="--part must be as 3/8"):
        list_runs("demo", part=part)


@pytest.mark.parametrize("threads", ["abc", "0", "-1", "4,x", "1.5", "99999999999", ",", "1 2"])
def test_threads_that_are_no_number(threads, tmp_path):
    asked = patch.dict(os.environ, OMP_NUM_THREADS=threads)
    with asked, pytest.raises(Refused, match="OMP_NUM_THREADS must be"):
        run_suite("demo", results_root=str(tmp_path), notebook=False)


@pytest.mark.parametrize("threads, each", [("4,2", 4), (" 3 ", 3), ("1", 1), ("", None)])
def test_threads_as_openmp_reads_them(threads, each):
    from zeroinit.sweep import driver

    with patch.dict(os.environ, OMP_NUM_THREADS=threads):
        assert driver.stated_threads() == each


TINY = Path(__file__).resolve().parent / "tiny.py"
QUICK = """
import sys
from zeroinit.experiments.suites import SUITES
from zeroinit.experiments.resolve import resolve
from zeroinit.publish.cli import main

def quick():
    "One run of an epoch."
    return [(resolve(dataset="digits", epochs=1, train_size=32, probe_steps=1), range(1))]

quick.claims = quick.short_of = ""
SUITES["quick"] = quick
if __name__ == "__main__":
    sys.exit(main())
"""


def drive(tmp_path, *args, env=None, before="", **more):
    """Run a suite of one run by the command, in a process of its own."""
    script = tmp_path / "quick.py"
    script.write_text(before + QUICK)
    return subprocess.run(
        [sys.executable, str(script), "run", "quick", "--jobs", "1", "--device", "cpu", *args],
        env=os.environ
        | {"PYTHONPATH": str(TINY.parent.parent), "OMP_NUM_THREADS": "1"}
        | (env or {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **more,
    )


@pytest.mark.slow
def test_a_long_tmpdir(tmp_path):
    folder = tmp_path / ("t" * 120)
    folder.mkdir()
    done = drive(
        tmp_path, "--no-notebook", "--results-root", tmp_path / "r", env=dict(TMPDIR=str(folder))
    )
    assert done.returncode == 0, done.stderr
    assert "1 runs" in done.stdout and "Traceback" not in done.stderr


@pytest.mark.slow
def test_braces_in_the_path(tmp_path):
    root = tmp_path / "{seed} {x} {{y}} {0} {" / "results"
    done = drive(tmp_path, "--results-root", root, cwd=TINY.parent.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(root.rglob("seed0.json"))) == 1
    assert len(list(root.parent.glob(".runs/**/seed0.ipynb"))) == 1


NAMELESS = """
import os, pwd

def nobody(uid):
    raise KeyError(uid)

pwd.getpwuid = nobody
os.environ.pop("HOME", None)
"""


@pytest.mark.slow
def test_a_user_without_a_name_and_home(tmp_path):
    """As in a container that is started with a number for its user."""
    options = ["--results-root", tmp_path / "r"]
    env = dict(XDG_CACHE_HOME="", ZEROINIT_DATA="")
    done = drive(tmp_path, "--no-notebook", *options, env=env, before=NAMELESS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def as_nobody(tree):
    """Run a command as a user that the system does not know and that owns a copy of the tree."""
    setpriv = shutil.which("setpriv")  # of Linux
    if os.geteuid() or not setpriv:
        pytest.skip("needs root and setpriv, to become another user")
    # it may read what root may, since Python itself can lie in root's home; it writes as any user
    only = "-all,+dac_read_search"
    become = [setpriv, "--reuid=54321", "--regid=54321", "--clear-groups"]
    become += [f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}"]
    if subprocess.run([*become, sys.executable, "-c", ""], check=False).returncode:
        pytest.skip("this system does not let root become a user that reads Python in its home")

    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "checkout"
        shutil.copytree(tree / "zeroinit", own / "zeroinit")
        (own / "nbs").mkdir()
        for name in ("settings.ini", "nbs/run_experiment.ipynb"):
            shutil.copy(tree / name, own / name)
        for path in (own, *own.rglob("*")):
            os.chown(path, 54321, 54321)

        def run(*args, **env):
            env = dict(PATH=os.environ["PATH"], PYTHONPATH=str(own), OMP_NUM_THREADS="1") | env
            command = [*become, *map(str, args)]
            return subprocess.run(
                command, cwd=own, env=env, capture_output=True, text=True, timeout=300, check=False
            )

        run.tree = own
        yield run


ONE_PAPERMILL_EPOCH = ["nbs/run_experiment.ipynb", "-p", "dataset", "digits", "-p", "epochs", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("seed, home", [(0, {}), (1, {"HOME": "/"})])
def test_papermill_for_a_user_without_a_name_and_home(as_nobody, seed, home):
    """$HOME is not set, or is what container engines set it to for such a user."""
    env = home | {"TMPDIR": str(as_nobody.tree)}
    done = as_nobody("papermill", *ONE_PAPERMILL_EPOCH, "-p", "seed", seed, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (record,) = as_nobody.tree.glob(f"runs/**/seed{seed}.json")
    assert str(record.relative_to(as_nobody.tree)) in done.stdout
    assert record.stat().st_uid == 54321
    assert not list(as_nobody.tree.glob("zeroinit-home-*"))  # if it was made, it was removed


@pytest.mark.slow
def test_papermill_for_a_user_who_may_only_read(as_nobody):
    os.chown(as_nobody.tree, 0, 0)
    done = as_nobody("papermill", *ONE_PAPERMILL_EPOCH, "-p", "results_root", "new")
    assert done.returncode == 1
    sentence = f"could not write in {as_nobody.tree}/new (Permission denied)"
    assert sentence in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_cache_without_a_home():
    from zeroinit.data.datasets import data_root
    from zeroinit.sweep.ray_cluster import results_folder_on_node

    def nobody(*_):
        raise KeyError("uid not found")

    with patch.dict(os.environ), patch("pwd.getpwuid", nobody):
        for name in (
            "HOME",
            "XDG_CACHE_HOME",
            "ZEROINIT_DATA",
            "USER",
            "LOGNAME",
            "USERNAME",
            "LNAME",
        ):
            os.environ.pop(name, None)
        assert data_root().name == "zeroinit"
        assert results_folder_on_node("/no/results", ".at-1-2").name == "results"


# ---------------------------------------------------------------------- one folder, two names


def test_a_link_leads_to_the_same_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real = tmp_path / "real/results"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "results").symlink_to(real)
    (tmp_path / "up").symlink_to(real.parent)
    e = resolve(**ONE_EPOCH)
    names = ["link", "results", "up/results", "link/../results", "real/results", str(real)]
    names += ["real/../real/results/", "./link", "link/."]
    locks = {run_path(results_path(name, e, 0), ".lock") for name in names}
    assert locks == {
        real.parent / ".runs" / results_path(real, e, 0).relative_to(real).with_suffix(".lock")
    }


def test_a_linked_folder_below(tmp_path):
    """The folder of a data set may be a link, to a larger disk."""
    real, root = tmp_path / "disk/results", tmp_path / "here/results"
    for folder in (real / "digits", root):
        folder.mkdir(parents=True)
    (root / "digits").symlink_to(real / "digits")
    e = resolve(**ONE_EPOCH)
    one, other = (run_path(results_path(r, e, 0), ".lock") for r in (real, root))
    assert one == other
    run(e, results_root=str(root), quiet=True)
    assert [p.name for p in real.rglob("seed0.*")] == ["seed0.json"]
    run(e, results_root=str(real), quiet=True)
    (log,) = tmp_path.rglob("seed0.log")
    assert log.read_text().count(" start ") == 1


def test_a_path_that_goes_up(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "x").mkdir(parents=True)
    monkeypatch.chdir(home)
    run(resolve(**ONE_EPOCH), results_root="x/..", quiet=True)
    assert sorted(p.name for p in home.iterdir()) == [".runs", "digits", "x"]
    run(resolve(**ONE_EPOCH), seed=1, results_root="x/../results/../results", quiet=True)
    assert sorted(p.name for p in home.iterdir()) == [".runs", "digits", "results", "x"]
    assert not (home / "results/.runs").exists()


@pytest.mark.slow
def test_two_drivers_by_two_names_share_the_runs(tmp_path):
    real = tmp_path / "real/results"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    command = [sys.executable, str(TINY), "run", "tiny", "--jobs", "1", "--device", "cpu"]
    env = os.environ | {"PYTHONPATH": str(TINY.parent.parent), "OMP_NUM_THREADS": "1"}
    drivers = [
        subprocess.Popen(
            [*command, "--no-notebook", "--results-root", str(root)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for root in (real, tmp_path / "link")
    ]
    for driver in drivers:
        out, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, out
    logs = list(tmp_path.rglob("seed*.log"))
    assert len(logs) == 6
    for log in logs:
        assert log.read_text().count(" epoch ") == 40, "trained twice"
