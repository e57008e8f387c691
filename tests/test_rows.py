"""Every row of both works' protocols, at full model size, in both protocols: on random pixels, a few images, one epoch."""

import json

import numpy as np
import pytest

from zeroinit.experiments.protocols import ROWS
from zeroinit.experiments.config import PROTOCOLS

SIZES = {
    "mnist": (28, 28),
    "cifar10": (32, 32, 3),
    "cifar100": (32, 32, 3),
    "tiny_imagenet": (64, 64, 3),
}
CLASSES = {"mnist": 10, "cifar10": 10, "cifar100": 100, "tiny_imagenet": 200}
CASES = [
    pytest.param(m, d, p, id=f"{m}-{d}-{p}")
    for rows in ROWS.values()
    for m, d in rows
    for p in PROTOCOLS
]


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """Prepared caches, in the form that the loaders write after a download."""
    from zeroinit.data.datasets import write_npz

    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, shape in SIZES.items():
        n = 2 * CLASSES[name]
        split = {f"x_{s}": rng.integers(0, 256, (n, *shape), np.uint8) for s in ("train", "test")}
        write_npz(
            root / f"{name}.npz",
            split | {f"y_{s}": np.arange(n) % CLASSES[name] for s in ("train", "test")},
        )
    return root


@pytest.mark.parametrize("model, dataset, protocol", CASES)
def test_row_runs(model, dataset, protocol, data_root, tmp_path):
    from zeroinit.experiments.resolve import resolve
    from zeroinit.experiments.runner import run

    e = resolve(
        model=model,
        dataset=dataset,
        protocol=protocol,
        init="default",
        epochs=1,
        train_size=10,
        eval_size=2,
        probe_steps=1,
    )
    (record,) = run(
        e, results_root=tmp_path / "results", data_root=data_root, device="cpu", quiet=True
    )
    assert record["status"] == "done" and record["history"][0]["train_loss"] > 0
    assert all(
        first == 1
        for name, first in record["probes"]["wake"]["first"].items()
        if name.endswith("weight")
    )


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
    from zeroinit.experiments.resolve import resolve
    from zeroinit.experiments.runner import run

    told = dict(
        protocol="published", epochs=1, train_size=12, batch_size=4, eval_size=2, probe_steps=0
    )
    e = resolve(model=model, dataset=dataset, init=init, init_args=args, **told)
    (record,) = run(
        e, results_root=tmp_path / "results", data_root=data_root, device="cpu", quiet=True
    )
    first = record["probes"]["wake"]["first"]
    assert record["status"] == "done" and first["head.weight"] == 1
    assert (
        max(v or 99 for k, v in first.items() if k.endswith("weight")) > 1
    )  # something had to wait


def papermill(call, data_root, tmp_path, *parameters):
    small = {
        "epochs": 1,
        "train_size": 6,
        "eval_size": 2,
        "device": "cpu",
        "results_root": tmp_path / "results",
        "data_root": data_root,
    }
    told = [x for k, v in small.items() for x in ("-p", k, v)]
    return call(
        "papermill",
        "nbs/run_experiment.ipynb",
        tmp_path / "out.ipynb",
        *told,
        *parameters,
        check=False,
    )


def test_a_scheme_for_parts_of_a_transformer(call, data_root, tmp_path):
    done = papermill(
        call,
        data_root,
        tmp_path,
        "-p",
        "model",
        "vit",
        "-p",
        "init",
        "zero_ffn_in",
        "-p",
        "protocol",
        "published",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (tmp_path / "results/cifar10/vit").glob("zero_ffn_in-*/seed0.json")
    config = json.loads(path.read_text())["config"]
    assert (config["augment"], config["scale"], config["metric"], config["precision"]) == (
        "batch_crop_flip",
        "raw",
        "max",
        "autocast",
    )


@pytest.mark.parametrize(
    "told, sentence",
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
def test_refused_in_one_sentence(told, sentence):
    from zeroinit.basics.errors import Refused
    from zeroinit.experiments.resolve import resolve

    if told["model"].startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(Refused, match=sentence) as refusal:
        resolve(**told)
    assert "\n" not in str(refusal.value)


def test_a_patch_that_does_not_divide(data_root, tmp_path):
    from zeroinit.basics.errors import Refused
    from zeroinit.data.datasets import write_npz
    from zeroinit.experiments.resolve import resolve

    x = np.zeros((20, 30, 30, 3), np.uint8)
    mine = write_npz(
        tmp_path / "mine.npz",
        dict(x_train=x, y_train=np.arange(20) % 2, x_test=x, y_test=np.arange(20) % 2),
    )
    with pytest.raises(Refused, match="30 x 30 cannot be cut into patches of 4 x 4"):
        resolve(model="mixer", init="default", dataset=str(mine))
