"""The real MNIST, where $ZEROINIT_DATA has it."""

import os
import warnings
from pathlib import Path

import pytest

DATA = os.environ.get("ZEROINIT_DATA")
has_mnist = DATA and (
    (Path(DATA) / "mnist.npz").exists()
    or (Path(DATA) / "MNIST/raw/train-images-idx3-ubyte").exists()
)
pytestmark = pytest.mark.skipif(not has_mnist, reason="there is no MNIST in $ZEROINIT_DATA")


@pytest.fixture(scope="module")
def mnist():
    from zeroinit.data.datasets import load

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a folder that cannot be written keeps no cache, and says so
        return load("mnist")


def test_it_is_mnist(mnist):
    assert mnist.x_train.shape == (60000, 1, 28, 28) and mnist.x_test.shape == (10000, 1, 28, 28)
    assert mnist.y_train.bincount().tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]
    assert abs(mnist.mean.item() - 0.1307) < 1e-4 and abs(mnist.std.item() - 0.3081) < 1e-4


def test_random_biases_learn_and_zero_biases_do_not(mnist, tmp_path):
    """The main finding, on 5,000 images for three epochs: far above chance, and the wave; or nothing at all."""
    from zeroinit.experiments.runner import resolve, run

    (learns,) = run(
        resolve(dataset="mnist", epochs=3, train_size=5000),
        results_root=tmp_path / "results",
        quiet=True,
    )
    (stuck,) = run(
        resolve(dataset="mnist", init="zero", epochs=3, train_size=5000),
        results_root=tmp_path / "results",
        quiet=True,
    )
    assert learns["history"][-1]["test_acc"] > 0.75 and stuck["history"][-1]["test_acc"] < 0.12
    assert [learns["probes"]["wake"]["first"][f"fc{i}.weight"] for i in (2, 1)] == [1, 2]
    assert {k for k, v in stuck["probes"]["wake"]["first"].items() if v} == {"fc2.bias"}
