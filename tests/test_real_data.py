"""The real MNIST, where $ZEROINIT_DATA has it."""

import os
import warnings
from pathlib import Path

import pytest

DATA = os.environ.get("ZEROINIT_DATA")
MNIST_FILES = ("mnist.npz", "MNIST/raw/train-images-idx3-ubyte")
has_mnist = DATA and any((Path(DATA) / name).exists() for name in MNIST_FILES)
pytestmark = pytest.mark.skipif(not has_mnist, reason="there is no MNIST in $ZEROINIT_DATA")
IMAGES_PER_CLASS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.fixture(scope="module")
def mnist():
    from zeroinit.data.datasets import load

    with warnings.catch_warnings():
        # in a folder that cannot be written no cache is kept, which a warning says
        warnings.simplefilter("ignore")
        return load("mnist")


def test_it_is_mnist(mnist):
    assert mnist.x_train.shape == (60000, 1, 28, 28)
    assert mnist.x_test.shape == (10000, 1, 28, 28)
    assert mnist.y_train.bincount().tolist() == IMAGES_PER_CLASS
    assert abs(mnist.mean.item() - 0.1307) < 1e-4
    assert abs(mnist.std.item() - 0.3081) < 1e-4


def test_random_biases_learn_and_zero_biases_do_not(mnist, tmp_path):
    """The main finding, on 5,000 images for three epochs.

    With random biases far above chance, and the layers wake one after the other; with zero biases
    nothing but the last bias learns.
    """
    from zeroinit.experiments.resolve import resolve
    from zeroinit.experiments.runner import run

    def trained(**settings):
        e = resolve(dataset="mnist", epochs=3, train_size=5000, **settings)
        (record,) = run(e, results_root=tmp_path / "results", quiet=True)
        return record

    learns, stuck = trained(), trained(init="zero")
    assert learns["history"][-1]["test_acc"] > 0.75
    assert stuck["history"][-1]["test_acc"] < 0.12
    first_updates = learns["probes"]["wake"]["first"]
    assert [first_updates[f"fc{i}.weight"] for i in (2, 1)] == [1, 2]
    awake = {name for name, update in stuck["probes"]["wake"]["first"].items() if update}
    assert awake == {"fc2.bias"}
