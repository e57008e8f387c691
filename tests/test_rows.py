"""Every row of both works' protocols, at full model size, in both protocols.

Each runs on random pixels: a few images, one epoch.
"""

import json

import numpy as np
import pytest

from zeroinit.experiments.config import PROTOCOLS
from zeroinit.experiments.protocols import ROWS, WORK_OF
from zeroinit.experiments.records import records
from zeroinit.experiments.suites import SUITES
from zeroinit.training.options import PRECISIONS, precision_on

SHAPES = {
    "mnist": (28, 28),
    "cifar10": (32, 32, 3),
    "cifar100": (32, 32, 3),
    "tiny_imagenet": (64, 64, 3),
}
CLASSES = {"mnist": 10, "cifar10": 10, "cifar100": 100, "tiny_imagenet": 200}
CASES = [
    pytest.param(model, dataset, protocol, id=f"{model}-{dataset}-{protocol}")
    for rows in ROWS.values()
    for model, dataset in rows
    for protocol in PROTOCOLS
]


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """Prepared caches, in the form that the loaders write after a download."""
    from zeroinit.data.datasets import arrays_digest, write_npz

    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        count = 2 * CLASSES[name]
        arrays = {}
        for split in ("train", "test"):
            arrays[f"x_{split}"] = rng.integers(0, 256, (count, *shape), np.uint8)
        for split in ("train", "test"):
            arrays[f"y_{split}"] = np.arange(count) % CLASSES[name]
        arrays["checked"] = np.array(arrays_digest(arrays))
        write_npz(root / f"{name}.npz", arrays)
    return root


def run_an_epoch(data_root, results_root, **settings):
    """The record of one run on the CPU; two images of each split are evaluated."""
    from zeroinit.experiments.resolve import resolve
    from zeroinit.experiments.runner import run

    experiment = resolve(epochs=1, eval_size=2, **settings)
    (record,) = run(
        experiment, results_root=results_root, data_root=data_root, device="cpu", quiet=True
    )
    return record


def first_updates(record):
    """Weight -> its first update with a gradient that is not zero, or None."""
    first = record["probes"]["wake"]["first"]
    return {name: update for name, update in first.items() if name.endswith("weight")}


@pytest.mark.parametrize("model, dataset, protocol", CASES)
def test_row_runs(model, dataset, protocol, data_root, tmp_path):
    record = run_an_epoch(
        data_root,
        tmp_path / "results",
        model=model,
        dataset=dataset,
        protocol=protocol,
        init="default",
        train_size=10,
        probe_steps=1,
    )
    assert record["status"] == "done"
    assert record["history"][0]["train_loss"] > 0
    assert all(update == 1 for update in first_updates(record).values())


@pytest.mark.parametrize(
    "model, dataset, init, args",
    [
        ("resnet50", "cifar10", "published_resnet50_normal", {}),
        ("resnet50", "cifar10", "bias_normal", {"norm_bias": True}),
        ("bottleneck_resnet", "cifar10", "zero_head", {}),
        ("vit", "tiny_imagenet", "zero_ffn_out", {}),
        ("mixer", "cifar10", "zero_ffn_in", {}),
        ("mixer", "tiny_imagenet", "zero_ffn_out", {}),
        ("mixer", "tiny_imagenet", "transient_noise", {}),
        ("mixer", "tiny_imagenet", "transient_noise", {"zero_norm": True}),
    ],
)
def test_the_works_own_schemes_on_their_own_models(model, dataset, init, args, data_root, tmp_path):
    record = run_an_epoch(
        data_root,
        tmp_path / "results",
        model=model,
        dataset=dataset,
        init=init,
        init_args=args,
        protocol="published",
        train_size=12,
        batch_size=4,
        probe_steps=0,
    )
    updates = first_updates(record)
    assert record["status"] == "done"
    assert updates["head.weight"] == 1
    assert any(update is None or update > 1 for update in updates.values())  # some layer waits


def papermill(call, data_root, tmp_path, **parameters):
    """A small run of the run notebook, finished."""
    small = {
        "epochs": 1,
        "train_size": 6,
        "eval_size": 2,
        "device": "cpu",
        "results_root": tmp_path / "results",
        "data_root": data_root,
    }
    arguments = []
    for name, value in (small | parameters).items():
        arguments += ["-p", name, value]
    notebook = "nbs/run_experiment.ipynb"
    return call("papermill", notebook, tmp_path / "out.ipynb", *arguments, check=False)


@pytest.mark.slow
def test_a_scheme_for_parts_of_a_transformer(call, data_root, tmp_path):
    finished = papermill(
        call, data_root, tmp_path, model="vit", init="zero_ffn_in", protocol="published"
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    (path,) = (tmp_path / "results/cifar10/vit").glob("zero_ffn_in-*/seed0.json")
    config = json.loads(path.read_text())["config"]
    assert config["augment"] == "batch_crop_flip"
    assert config["scale"] == "raw"
    assert config["metric"] == "max"
    assert config["precision"] == "autocast"


@pytest.mark.parametrize(
    "settings, sentence",
    [
        (dict(model="torchvision:resnt18"), "did you mean resnet18"),
        (dict(model="timm:resnet181"), "did you mean resnet18"),
        (dict(model="torchvision:alexnet", init="zero"), "cannot take images of 32 x 32"),
        (
            dict(model="vit", init="bias_normal"),
            "cannot treat layer block1.attend.branch.attention.qkv",
        ),
        (dict(model="cnn", init="zero_ffn_out"), "needs a feed-forward block"),
        (dict(model="resnet50", augment="crop+flip"), "unknown augmentation 'crop'"),
    ],
)
def test_refused_in_one_sentence(settings, sentence):
    from zeroinit.basics.errors import Refused
    from zeroinit.experiments.resolve import resolve

    if settings["model"].startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(Refused, match=sentence) as refusal:
        resolve(**settings)
    assert "\n" not in str(refusal.value)


def test_a_patch_that_does_not_divide(data_root, tmp_path):
    from zeroinit.basics.errors import Refused
    from zeroinit.data.datasets import write_npz
    from zeroinit.experiments.resolve import resolve

    x = np.zeros((20, 30, 30, 3), np.uint8)
    y = np.arange(20) % 2
    path = write_npz(tmp_path / "mine.npz", dict(x_train=x, y_train=y, x_test=x, y_test=y))
    with pytest.raises(Refused, match="30 x 30 cannot be cut into patches of 4 x 4"):
        resolve(model="mixer", init="default", dataset=str(path))


def test_suites_and_records_name_their_precision():
    """No experiment leaves it to the machine: TF32 is used where its name says so, and nowhere."""
    works = {"float32": 0, "autocast": 0, "bf16": 0}
    for list_experiments in SUITES.values():
        for e, _ in list_experiments():
            assert e.precision in PRECISIONS and e.precision != "tf32", e
            if e.model in WORK_OF and e.precision in works:
                works[e.precision] += 1
            if e.model in ("fnn", "cnn", "resnet50") and e.protocol == "published":
                assert e.precision == "float32", e
    assert min(works.values()) > 0
    checked = 0
    for record in records("results"):
        env = record["env"]
        if env.get("precision"):  # the first records have none
            expected = precision_on(record["config"]["precision"], env["device_type"])
            assert env["precision"] == expected and not env.get("tf32")
            checked += 1
    assert checked > 0
