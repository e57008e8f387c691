"""A checkpoint that is not the run's own, or not what was written, never becomes a record.

Each test stops a real run of the digits, changes its checkpoint, and runs it again. The file is
named in one sentence and moved to `.runs/aside`, the run starts anew, and its record is the one of
a run that nothing disturbed.
"""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from zeroinit.basics.errors import Refused
from zeroinit.data.datasets import load
from zeroinit.experiments import runner
from zeroinit.experiments.context import RunContext, Stopped
from zeroinit.experiments.locks import run_lock
from zeroinit.experiments.records import run_path
from zeroinit.experiments.resolve import resolve
from zeroinit.experiments.runner import epochs_in_checkpoint, run, seed_runs

DIGITS = load("digits")
SHORT = dict(dataset="digits", epochs=4, train_size=96, eval_size=50, probe_steps=2)


def numbers(record):
    """What a record holds except for times and the machine."""
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in record["history"]]
    return record["config"], record["seed"], record["status"], history, record["probes"]


def stop_after(epochs, e, root, seed=0, data=None):
    """Run an experiment for some epochs and stop it; returns its `SeedRun`, with a checkpoint."""
    context = RunContext(provided_data={"digits": data or DIGITS})
    (seed_run,) = seed_runs(e, [seed], root)
    trained = []

    class Stop:
        def is_set(self):
            trained.append(1)
            return len(trained) == epochs

    context.stop = Stop()
    with pytest.raises(Stopped):
        run(e, seed, results_root=str(root), device="cpu", quiet=True, context=context)
    assert epochs_in_checkpoint(seed_run.checkpoint) == epochs
    return seed_run


def run_quietly(e, root, seed=0, **more):
    """Run an experiment; returns its record and the warnings."""
    more["context"] = RunContext(provided_data={"digits": DIGITS})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (record,) = run(e, seed, results_root=str(root), device="cpu", quiet=True, **more)
    return record, [str(w.message) for w in caught]


def read(path):
    """The tensors of a checkpoint, and its metadata."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in list(file.keys())}, file.metadata()


def edit(path, change_tensors=None, change_meta=None):
    """Change a checkpoint's tensors in place, or its meta; the rest stays."""
    tensors, metadata = read(path)
    if change_tensors:
        change_tensors(tensors)
    if change_meta:
        meta = json.loads(metadata["meta"])
        metadata["meta"] = json.dumps(change_meta(meta))
    save_file(tensors, path, metadata)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """These runs are too small to share among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def e():
    return resolve(**SHORT)


@pytest.fixture(scope="module")
def expected(e, tmp_path_factory):
    """The numbers of the run that nothing disturbs."""
    record, messages = run_quietly(e, tmp_path_factory.mktemp("calm") / "results")
    assert messages == []
    return numbers(record)


@pytest.fixture(scope="module")
def after_two_epochs(e, tmp_path_factory):
    """A folder of a run that was stopped after two epochs."""
    folder = tmp_path_factory.mktemp("stopped")
    stop_after(2, e, folder / "results")
    return folder


@pytest.fixture
def stopped(after_two_epochs, e, tmp_path):
    """A run that was stopped after two epochs, in a folder of its own."""
    shutil.copytree(after_two_epochs, tmp_path, dirs_exist_ok=True)
    (seed_run,) = seed_runs(e, [0], tmp_path / "results")
    return seed_run


def check_starts_anew(seed_run, expected, *words):
    """Run again: the checkpoint is set aside, named in one sentence, and the record is right."""
    root = seed_run.path.parents[3]
    content = seed_run.checkpoint.read_bytes()
    record, messages = run_quietly(seed_run.experiment, root, seed_run.seed)
    assert len(messages) == 1, messages
    assert "\n" not in messages[0] and str(seed_run.checkpoint) in messages[0]
    for word in words:
        assert word in messages[0], messages[0]
    (moved,) = (root.parent / ".runs/aside").rglob("*.safetensors")
    assert moved.read_bytes() == content and str(moved) in messages[0]
    log = seed_run.log.path.read_text()
    assert log.count(" epoch 1/4 ") == 2, "it did not start anew"
    assert numbers(record) == expected
    assert not seed_run.checkpoint.exists()


def test_its_own_checkpoint_is_continued(e, expected, stopped, tmp_path):
    seed_run = stopped
    record, messages = run_quietly(e, tmp_path / "results")
    assert messages == [] and numbers(record) == expected
    assert seed_run.log.path.read_text().count(" epoch 1/4 ") == 1
    assert not (tmp_path / ".runs/aside").exists()


# ----------------------------------------------------------------------- of another run

OTHERS = {
    "scheme": (dict(init="zero"), 0, "experiment"),
    "arguments": (dict(init_args={"std": 0.5}), 0, "experiment"),
    "batch size": (dict(batch_size=48), 0, "experiment"),
    "fewer images": (dict(train_size=64), 0, "experiment"),
    "scale of pixels": (dict(scale="standard"), 0, "experiment"),
    "recipe": (dict(lr=0.5), 0, "experiment"),
    "model": (dict(model="logistic", init="default"), 0, "experiment"),
    "epochs": (dict(epochs=3), 0, "experiment"),
    "seed": ({}, 1, "seed 1"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_the_checkpoint_of_another_run(what, e, expected, tmp_path):
    settings, seed, word = OTHERS[what]
    other = stop_after(2, resolve(**(SHORT | settings)), tmp_path / "other/results", seed)
    (mine,) = seed_runs(e, [0], tmp_path / "results")
    mine = stop_after(1, e, tmp_path / "results")
    other.checkpoint.replace(mine.checkpoint)
    check_starts_anew(mine, expected, "of another run", word)


def test_the_checkpoint_of_other_data(e, expected, tmp_path):
    digits = load("digits")
    flipped = replace(digits, x_train=digits.x_train.flip(-1))
    seed_run = stop_after(2, e, tmp_path / "results", data=flipped)
    check_starts_anew(seed_run, expected, "data")


def test_the_checkpoint_of_other_code(e, expected, tmp_path):
    with patch.object(runner, "computing_code", lambda: "0ther"):
        seed_run = stop_after(2, e, tmp_path / "results")
    check_starts_anew(seed_run, expected, "code 0ther")


def test_the_checkpoint_of_another_torch(e, expected, tmp_path):
    with patch.object(torch, "__version__", "1.0.0"):
        seed_run = stop_after(2, e, tmp_path / "results")
    check_starts_anew(seed_run, expected, "torch 1.0.0")


def test_another_commit_of_the_same_code_goes_on(e, expected, stopped, tmp_path):
    seed_run = stopped
    version = dict(git="f" * 40, dirty=True)
    with (
        patch("zeroinit.experiments.records.code_version", lambda: version),
        patch("zeroinit.__version__", "99.0"),
    ):
        record, messages = run_quietly(e, tmp_path / "results")
    assert messages == [] and numbers(record) == expected
    assert record["env"]["git"] == "f" * 40
    assert seed_run.log.path.read_text().count(" epoch 1/4 ") == 1


# ------------------------------------------------------------------------ not what was written


def flip_a_bit(tensors):
    weights = tensors["model.fc1.weight"].view(torch.int32)
    weights[0, 0] ^= 1


def rename(old, new):
    def change(tensors):
        tensors[new] = tensors.pop(old)

    return change


def convert(prefix, function):
    def change(tensors):
        for name in [name for name in tensors if name.startswith(prefix)]:
            tensors[name] = function(tensors[name])

    return change


def remove(prefix):
    def change(tensors):
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]

    return change


TENSORS = {
    "one bit of a weight": flip_a_bit,
    "NaN": convert("model.", lambda t: torch.full_like(t, torch.nan)),
    "one NaN": lambda tensors: tensors["model.fc1.bias"][:1].fill_(torch.nan),
    "infinite": convert("model.fc2", lambda t: torch.full_like(t, torch.inf)),
    "float16": convert("model.", torch.Tensor.half),
    "float64": convert("model.", torch.Tensor.double),
    "integers": convert("model.fc1", torch.Tensor.int),
    "transposed": convert("model.fc1.weight", lambda t: t.T.contiguous()),
    "one row of weights": convert("model.fc1.weight", lambda t: t[:1].clone()),
    "a layer is missing": remove("model.fc3"),
    "a layer has another name": rename("model.fc1.bias", "model.fc9.bias"),
    "no weights": remove("model."),
    "no optimizer": remove("optimizer."),
    "no state of one parameter": remove("optimizer.0."),
    "no means": remove("optimizer.1.exp_avg"),
    "misshaped optimizer": convert("optimizer.0.exp_avg", lambda t: t[:1, :1].clone()),
    "optimizer of zeros": convert("optimizer.", torch.zeros_like),
    "optimizer of a parameter too many": rename("optimizer.0.step", "optimizer.99.step"),
    "optimizer of no parameter": rename("optimizer.0.step", "optimizer.x.step"),
    "no random states": remove("random."),
    "no order": remove("random.generator"),
    "float random state": convert("random.torch", torch.Tensor.float),
    "short random state": convert("random.torch", lambda t: t[:10].clone()),
    "other random state": convert("random.generator", torch.zeros_like),
    "nothing": remove(""),
    "one more": lambda tensors: tensors.update(extra=torch.zeros(1)),
}


@pytest.mark.parametrize("what", TENSORS)
def test_changed_tensors(what, e, expected, stopped, tmp_path):
    seed_run = stopped
    edit(seed_run.checkpoint, TENSORS[what])
    check_starts_anew(seed_run, expected, "changed")


def better_history(meta):
    for row in meta["history"]:
        row["test_acc"] = 0.99
    return meta


def without(*keys):
    def change(meta):
        inner = meta
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        return meta

    return change


def put(value, *keys):
    def change(meta):
        inner = meta
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        return meta

    return change


METAS = {
    "{}": lambda meta: {},
    "[]": lambda meta: [],
    "null": lambda meta: None,
    "a number": lambda meta: 3,
    "a text": lambda meta: "history",
    "a list of it": lambda meta: [meta],
    "edited history": better_history,
    "missing row": without("history", 0),
    "row twice": lambda meta: meta | dict(history=meta["history"] * 2),
    "empty history": put([], "history"),
    "no history": without("history"),
    "history is a number": put(7, "history"),
    "history is a text": put("ab", "history"),
    "history is a dict": put({"a": 1, "b": 2}, "history"),
    "history of numbers": put([1, 2], "history"),
    "a row without loss": without("history", 1, "train_loss"),
    "a loss that is text": put("low", "history", 1, "train_loss"),
    "too many epochs": lambda meta: meta | dict(history=meta["history"] * 9),
    "no probes": without("probes"),
    "empty probes": put({}, "probes"),
    "probes is a list": put([], "probes"),
    "empty probe state": put({}, "probes", "wake"),
    "probe state is null": put(None, "probes", "wake"),
    "another wake": put(1, "probes", "wake", "updates"),
    "no recipe": without("recipe"),
    "another recipe": put("Recipe()", "recipe"),
    "no run": without("run"),
    "run is null": put(None, "run"),
    "run is text": put("mine", "run"),
    "another seed": put(5, "run", "seed"),
}


@pytest.mark.parametrize("what", METAS)
def test_changed_meta(what, e, expected, stopped):
    edit(stopped.checkpoint, change_meta=METAS[what])
    check_starts_anew(stopped, expected)


# With a digest that fits, as a version of the code with a fault would write it. What the program
# could have written is left out.
COULD_BE = ("another wake", "edited history")


@pytest.mark.slow
@pytest.mark.parametrize("what", [what for what in METAS if what not in COULD_BE])
def test_meta_that_does_not_fit_with_a_digest_that_does(what, e, expected, stopped):
    edit(stopped.checkpoint, change_meta=METAS[what])
    sign(stopped.checkpoint)
    check_starts_anew(stopped, expected)


def sign(path):
    """Give a checkpoint the digest of what it holds."""
    from zeroinit.training.checkpoints import _to_bytes

    tensors, metadata = read(path)
    path.write_bytes(_to_bytes(tensors, json.loads(metadata["meta"])))


FIT = (  # the program could have written them
    "one bit of a weight",
    "NaN",
    "one NaN",
    "infinite",
    "no optimizer",
    "no state of one parameter",
    "optimizer of zeros",
    "other random state",
)


@pytest.mark.slow
@pytest.mark.parametrize("what", [what for what in TENSORS if what not in FIT])
def test_tensors_that_do_not_fit_with_a_digest_that_does(what, e, expected, stopped, tmp_path):
    seed_run = stopped
    edit(seed_run.checkpoint, TENSORS[what])
    sign(seed_run.checkpoint)
    check_starts_anew(seed_run, expected)


def test_a_checkpoint_without_a_digest(e, expected, stopped, tmp_path):
    seed_run = stopped
    tensors, metadata = read(seed_run.checkpoint)
    save_file(tensors, seed_run.checkpoint, {"meta": metadata["meta"]})
    check_starts_anew(seed_run, expected)


@pytest.mark.parametrize("metadata", [None, {}, {"meta": "{"}, {"meta": "[" * 100_000}])
def test_odd_metadata(metadata, e, expected, stopped, tmp_path):
    seed_run = stopped
    tensors, _ = read(seed_run.checkpoint)
    save_file(tensors, seed_run.checkpoint, metadata)
    check_starts_anew(seed_run, expected)


def save_zip(path):
    torch.save({"weights": torch.zeros(3)}, path)


BYTES = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[:-100],
    "half": lambda data: data[: len(data) // 2],
    "header only": lambda data: data[:8],
    "longer": lambda data: data + b"0",
    "a bit of the header": lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:],
    "the last bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "text": lambda data: b"{}",
    "zeros": lambda data: bytes(len(data)),
    "a zip file": lambda data: b"PK\3\4" + data,
    "huge header": lambda data: b"\xff" * 8 + data[8:],
}


@pytest.mark.parametrize("what", BYTES)
def test_changed_bytes(what, e, expected, stopped, tmp_path):
    seed_run = stopped
    seed_run.checkpoint.write_bytes(BYTES[what](seed_run.checkpoint.read_bytes()))
    check_starts_anew(seed_run, expected)


def test_every_bit_counts(e, tmp_path):
    """Wherever a bit of the file is flipped, it is no longer a checkpoint of the run."""
    from zeroinit.training.checkpoints import CheckpointMismatch, read_checkpoint

    seed_run = stop_after(1, e, tmp_path / "results")
    data = seed_run.checkpoint.read_bytes()
    whole = read_checkpoint(seed_run.checkpoint)
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    positions = [*rng.integers(0, header, 150), *rng.integers(header, len(data), 150)]
    for position in positions:
        changed = bytearray(data)
        changed[position] ^= 1 << int(rng.integers(8))
        seed_run.checkpoint.write_bytes(changed)
        try:
            meta, tensors = read_checkpoint(seed_run.checkpoint)
        except CheckpointMismatch:
            continue
        # nothing but the padding of the header
        assert meta == whole[0] and set(tensors) == set(whole[1])
        assert all(torch.equal(tensors[name], whole[1][name]) for name in tensors)


def test_a_folder_in_its_place(e, expected, tmp_path):
    seed_run = stop_after(1, e, tmp_path / "results")
    seed_run.checkpoint.unlink()
    seed_run.checkpoint.mkdir()
    record, messages = run_quietly(e, tmp_path / "results")
    assert len(messages) == 1 and numbers(record) == expected


def test_a_link_that_leads_nowhere(e, expected, tmp_path):
    seed_run = stop_after(1, e, tmp_path / "results")
    seed_run.checkpoint.unlink()
    seed_run.checkpoint.symlink_to("nowhere")
    record, _ = run_quietly(e, tmp_path / "results")
    assert numbers(record) == expected


def test_only_the_seed_concerned_starts_anew(e, tmp_path):
    apart = [run_quietly(e, tmp_path / "apart/results", seed)[0] for seed in range(2)]
    runs = [stop_after(2, e, tmp_path / "results", seed) for seed in range(2)]
    edit(runs[1].checkpoint, flip_a_bit)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        together = run(e, seeds=2, together=2, results_root=str(tmp_path / "results"), quiet=True)
    assert len(caught) == 1 and str(runs[1].checkpoint) in str(caught[0].message)
    counts = [r.log.path.read_text().count(" epoch 1/4 ") for r in runs]
    assert counts == [1, 2]
    for one, other in zip(apart, together, strict=True):
        losses = [record["history"][-1]["test_loss"] for record in (one, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_fit_names_the_file(tmp_path):
    """Whoever calls `fit` with a checkpoint of another run gets one sentence."""
    from zeroinit.models.networks import build
    from zeroinit.training.loop import fit
    from zeroinit.training.options import Recipe

    model = build("logistic", image_shape=(1, 8, 8), classes=10)
    batches = [(torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.long))]
    path = tmp_path / "c.safetensors"
    recipe = Recipe(epochs=1)
    for content in (b"", b"{}", b"PK\3\4"):
        path.write_bytes(content)
        with pytest.raises(Refused, match=f"checkpoint {path} .*delete it or choose another"):
            fit(model, batches, recipe=recipe, checkpoint=path, label=None)
    path.unlink()
    fit(model, batches, recipe=recipe, checkpoint=path, label=None, identity=dict(name="a"))
    with pytest.raises(Refused, match="of another run: name a, not b"):
        fit(model, batches, recipe=recipe, checkpoint=path, label=None, identity=dict(name="b"))


# ----------------------------------------------------------------------------- left-overs


def leave_checkpoint(e, root):
    """A finished run whose process was killed before it could remove its checkpoint."""
    stopped = stop_after(2, e, root)
    content = stopped.checkpoint.read_bytes()
    run_quietly(e, root)
    stopped.checkpoint.write_bytes(content)
    temporary = stopped.checkpoint.with_name(f".{stopped.checkpoint.name}.0.tmp")
    temporary.touch()
    return stopped, temporary


def test_run_sweeps_what_a_finished_run_left(e, expected, tmp_path):
    seed_run, temporary = leave_checkpoint(e, tmp_path / "results")
    before = seed_run.path.read_bytes()
    record, messages = run_quietly(e, tmp_path / "results")
    assert messages == [] and numbers(record) == expected
    assert seed_run.path.read_bytes() == before
    assert not seed_run.checkpoint.exists() and not temporary.exists()


def small_suite(e):
    def small():
        "One run."
        return [(e, range(1))]

    small.claims = small.short_of = ""
    return {"small": small}


@pytest.mark.parametrize("command", ["status", "run"])
def test_commands_sweep_what_finished_runs_left(command, e, tmp_path):
    from zeroinit.experiments.suites import SUITES
    from zeroinit.publish.cli import main

    seed_run, temporary = leave_checkpoint(e, tmp_path / "results")
    with patch.dict(SUITES, small_suite(e)):
        assert main([command, "small", "--results-root", str(tmp_path / "results")]) == 0
    assert not seed_run.checkpoint.exists() and not temporary.exists()
    assert seed_run.path.exists()


def test_nothing_of_a_live_process_is_swept(e, tmp_path, call):
    """A driver that trains again by force holds the lock; its checkpoint stays."""
    import subprocess
    import sys

    from zeroinit.experiments.suites import SUITES
    from zeroinit.publish.cli import main

    seed_run, temporary = leave_checkpoint(e, tmp_path / "results")
    script = "import sys; from filelock import FileLock\n"
    script += "with FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(seed_run.lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    try:
        with patch.dict(SUITES, small_suite(e)):
            for command in ("status", "run"):
                assert main([command, "small", "--results-root", str(tmp_path / "results")]) == 0
        run_quietly(e, tmp_path / "results")
        assert seed_run.checkpoint.exists() and temporary.exists()
    finally:
        holder.communicate()
    run_quietly(e, tmp_path / "results")
    assert not seed_run.checkpoint.exists()


def test_a_checkpoint_without_a_record_stays(e, stopped, tmp_path):
    from zeroinit.experiments.suites import SUITES
    from zeroinit.publish.cli import main

    seed_run = stopped
    with patch.dict(SUITES, small_suite(e)):
        main(["status", "small", "--results-root", str(tmp_path / "results")])
    assert seed_run.checkpoint.exists()


def test_the_lock_is_where_the_checkpoint_is(e, tmp_path):
    (seed_run,) = seed_runs(e, [0], tmp_path / "results")
    assert seed_run.checkpoint == run_path(seed_run.path, ".safetensors")
    with run_lock(seed_run.lock):
        assert Path(seed_run.lock).exists()
