"""Fast ways to train against the plain one: compiled, recorded, or several models at once."""

import json
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch

from zeroinit.data.batches import Batches, augmentation
from zeroinit.diagnostics.probes import Wake
from zeroinit.experiments.context import RunContext
from zeroinit.experiments.resolve import resolve
from zeroinit.experiments.runner import run
from zeroinit.models.networks import build
from zeroinit.publish import gpu, profiles
from zeroinit.training import loop
from zeroinit.training.hardware import fast_layout
from zeroinit.training.loop import fit_all, train_epoch
from zeroinit.training.optimizers import Adam
from zeroinit.training.options import Recipe
from zeroinit.training.stacked import Stack, stack_batches
from zeroinit.training.steps import RecordedStep, Recorder, capture_cuda_graph, make_step
from zeroinit.training.together import ONE_AT_A_TIME, SIDE_BY_SIDE, WAYS, Trials

SHAPES = {
    "fnn": (1, 8, 8),
    "cnn": (3, 8, 8),
    "residual_cnn": (3, 8, 8),
    "resnet14": (3, 8, 8),
    "vit": (3, 8, 8),
    "mixer": (3, 8, 8),
}
SIZES = {
    "vit": dict(width=16, depth=2, heads=2, head_width=8),
    "mixer": dict(width=16, depth=2),
}


def build_model(name):
    return build(name, image_shape=SHAPES[name], classes=10, **SIZES.get(name, {}))


def make_batches(x, y, augment, order, chance):
    """Batches of 16 images, in an order and under an augmentation drawn by two generators."""
    if augment is None:
        return Batches(x, y, 16, generator=order)
    augmented = augmentation(augment, tuple(x.shape[1:]), 10)
    return Batches(x, y, 16, generator=order, augment=augmented, chance=chance)


def train(
    name, speed, device="cpu", together=1, augment=None, epochs=4, n=70, trials=None, **options
):
    """Parameters and history of a small run on random images."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (n, *SHAPES[name]), dtype=torch.uint8, generator=generator).to(device)
    y = torch.randint(10, (n,), generator=generator).to(device)

    models, trains = [], []
    for seed in range(together):
        torch.manual_seed(seed)
        models.append(build_model(name).to(device))
        order = torch.Generator().manual_seed(10 + seed)
        chance = torch.Generator().manual_seed(20 + seed)
        trains.append(make_batches(x, y, augment, order, chance))

    recipe = dict(epochs=epochs, lr_step=2, lr_gamma=0.5, precision="float64")
    recipe = Recipe(**(recipe | options))
    evals = dict(test=Batches(x, y, 32))
    probes = [[Wake()] for _ in models]
    results = fit_all(models, trains, evals, recipe, probes, speed=speed, trials=trials)

    tensors, rows = [], []
    for model, result in zip(models, results, strict=True):
        tensors += [t.detach().cpu() for t in model.state_dict().values()]
        for row in result["history"]:
            rows.append([value for key, value in row.items() if key != "seconds"])
    return tensors, torch.tensor(rows)


def assert_same(run, other, atol=1e-9):
    """Two runs agree in all parameters and in their history."""
    for a, b in zip(run[0], other[0], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)
    torch.testing.assert_close(run[1], other[1], rtol=0, atol=atol)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.parametrize("name", ["fnn", pytest.param("resnet14", marks=pytest.mark.slow)])
def test_compiled(name):
    # batches of one size, since each size is compiled
    assert_same(train(name, "compile", epochs=2, n=64), train(name, "plain", epochs=2, n=64))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
def test_the_next_model_of_a_shape_is_not_compiled_again():
    compiled = []
    for _ in range(2):
        train("fnn", "compile", epochs=2, n=64)
        compiled.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert compiled[0] == compiled[1] > 0


@pytest.mark.parametrize("name", SHAPES)
def test_auto(name):
    assert_same(train(name, "auto", epochs=2), train(name, "plain", epochs=2))


def record_nothing(f, inputs):
    """Call a function once where a GPU would record it."""
    return f(*inputs), lambda: None


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize(
    "name, augment",
    [
        *((name, augment) for name in SHAPES for augment in (None, "crop_flip")),
        ("cnn", "batch_crop_flip"),
        ("cnn", "jitter+mixup"),
    ],
)
def test_an_epoch_reads_nothing_back(name, augment, together):
    """An epoch runs on the device `meta`, which has no values to read and mixes with no other.

    So it reads nothing from a GPU either, whether it is called step by step or recorded.
    """
    x = torch.empty(40, *SHAPES[name], dtype=torch.uint8, device="meta")
    y = torch.zeros(40, dtype=torch.int64, device="meta")
    models, optimizers, trains = [], [], []
    order, chance = torch.Generator(), torch.Generator()
    for _ in range(together):
        model = build_model(name).to("meta")
        models.append(model.to(memory_format=fast_layout(model)))
        optimizers.append(Adam(models[-1].parameters()))
        trains.append(make_batches(x, y, augment, order, chance))
    test = Batches(x, y, 32)
    for is_recorded in (False, True):
        model, optimizer, batches = models[0], optimizers[0], trains[0]
        if together > 1:
            model = Stack(models, optimizers)
            optimizer = model.optimizer
            batches = stack_batches(trains)
        step = make_step(model, optimizer, Recipe())
        if is_recorded:
            step = RecordedStep(step, Recorder(record_nothing))
        for _ in range(3):
            sums = (train_epoch(step, batches), step.evaluate(test))
        assert [(s.device.type, s.shape[-1]) for s in sums] == [("meta", 3)] * 2
    with pytest.raises((NotImplementedError, RuntimeError)):
        sums[0].tolist()


def test_training_loads_no_compiler():
    """Nor torchvision, scikit-learn or scipy: a run begins as soon as torch is loaded."""
    code = """import sys, tempfile
from zeroinit.experiments.runner import run
from zeroinit.experiments.resolve import resolve
from zeroinit.data.datasets import write_npz
import numpy as np
with tempfile.TemporaryDirectory() as d:
    x, y = np.zeros((60, 8, 8), dtype=np.uint8), np.arange(60) % 10
    write_npz(f"{d}/made_up.npz", dict(x_train=x, y_train=y, x_test=x, y_test=y))
    for name in (f"{d}/made_up.npz", "digits"):
        run(resolve(dataset=name, epochs=1), results_root=f"{d}/results", quiet=True)
slow = ("torch._dynamo", "torch._inductor", "sympy", "torchvision", "sklearn", "scipy", "seaborn",
        "matplotlib", "papermill", "ray")
print([m for m in slow if m in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")


@cuda
@pytest.mark.parametrize("augment", [None, "crop_flip"])
@pytest.mark.parametrize("name", SHAPES)
def test_recorded(name, augment):
    recorded = train(name, "auto", "cuda", augment=augment, epochs=6)
    plain = train(name, "plain", "cuda", augment=augment, epochs=6)
    assert_same(recorded, plain, 1e-8)


@cuda
@pytest.mark.parametrize("name", SHAPES)
def test_together(name):
    alone = train(name, "plain", "cuda", together=1, epochs=6)
    tensors, history = train(name, "auto", "cuda", together=3, epochs=6)
    first_of_three = (tensors[: len(alone[0])], history[:6])
    assert_same(first_of_three, alone, 1e-8)


@cuda
@pytest.mark.parametrize("ways", [(SIDE_BY_SIDE,), (ONE_AT_A_TIME, SIDE_BY_SIDE)])
@pytest.mark.parametrize("augment", [None, "crop_flip"])
@pytest.mark.parametrize("name", SHAPES)
def test_side_by_side(name, augment, ways):
    """Three networks train as each alone, on streams of their own, whichever way plays them."""
    trials = Trials(ways)
    together = train(name, "auto", "cuda", 3, augment, epochs=10, trials=trials)
    assert set(trials.measured()) == set(ways)  # recorded by then, and timed
    alone = train(name, "auto", "cuda", 1, augment, epochs=10)
    first_of_three = (together[0][: len(alone[0])], together[1][:10])
    assert_same(first_of_three, alone, 1e-8)
    again = train(name, "auto", "cuda", 3, augment, epochs=10, trials=Trials(ways))
    assert_same(again, together, 1e-8)


@cuda
@pytest.mark.parametrize("name", ["fnn", "cnn"])
def test_a_stack_among_the_ways(name):
    """Networks leave the stack, train on streams of their own, and may come back."""
    trials = Trials(WAYS, epochs=1)
    together = train(name, "auto", "cuda", 3, epochs=14, trials=trials)
    assert set(trials.measured()) == set(WAYS)
    alone = train(name, "plain", "cuda", 1, epochs=14)
    first_of_three = (together[0][: len(alone[0])], together[1][:14])
    assert_same(first_of_three, alone, 1e-8)


@cuda
@pytest.mark.parametrize("model, ways", [("fnn", 3), ("cnn", 2)])
def test_the_record_keeps_the_way(model, ways, tmp_path):
    """The ways are timed in the first runs of a process, and known to the ones that follow."""
    context = RunContext()
    for init in ("default", "bias_normal"):
        e = resolve(dataset="digits", model=model, init=init, epochs=50)
        options = dict(seeds=3, together=3, quiet=True, device="cuda", context=context)
        for record in run(e, results_root=str(tmp_path / "results"), **options):
            seconds = record["env"]["seconds_of_ways"]
            assert len(seconds) == ways and record["env"]["together"] == 3
            assert record["env"]["way"] == min(seconds, key=seconds.get)
            assert seconds[record["env"]["way"]] <= seconds[ONE_AT_A_TIME]


@pytest.mark.parametrize(
    "precision", ["float32", "bf16", *(pytest.param(p, marks=cuda) for p in ("tf32", "autocast"))]
)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=cuda)])
def test_precisions(device, precision):
    _, history = train("resnet14", "auto", device, precision=precision)
    _, exact = train("resnet14", "auto", device, precision="float64")
    if precision == "float32":
        # only in the first epoch: later, Adam amplifies the rounding, and one answer of 70 differs
        torch.testing.assert_close(history[:1], exact[:1], rtol=0, atol=1e-3)
    torch.testing.assert_close(history, exact, rtol=0, atol=0.2)
    assert not torch.equal(history, exact)


@cuda
@pytest.mark.parametrize("speed", ["plain", "auto", "compile"])
def test_an_epoch_asks_the_host_nothing(speed, monkeypatch):
    """After the first epochs, in which libraries and recordings may, only its row is read."""
    epochs, recordings = [], []
    train_in_parts = loop.train_in_parts

    def capture_and_count(*args, **kwargs):
        recordings.append(1)
        return capture_cuda_graph(*args, **kwargs)

    def train_without_reads(*args):
        epochs.append(1)
        torch.cuda.set_sync_debug_mode("error" if len(epochs) > 5 else "default")
        try:
            return (yield from train_in_parts(*args))
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr("zeroinit.training.steps.capture_cuda_graph", capture_and_count)
    monkeypatch.setattr(loop, "train_in_parts", train_without_reads)
    train("resnet14", speed, "cuda", augment="crop_flip", epochs=6, precision="autocast")
    assert len(epochs) == 6
    assert (len(recordings) > 1) == (speed != "plain")  # of an evaluation, and of steps


# of Adam; the rate is a power of 2, since on a GPU it is rounded to float32 (1e-3 by 5e-8 of it)
LR, EPS = 2.0**-10, 1e-8
UNIT_ROUNDOFF = torch.finfo(torch.float64).eps / 2


def first_step(name, device, order=slice(None), distortion=0.0):
    """Loss, gradients and updates of Adam's first step in float64, on 70 images in some order.

    A `distortion` multiplies every gradient by 1 + distortion.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(70, *SHAPES[name], dtype=torch.float64, generator=generator)
    y = torch.randint(10, (70,), generator=generator)
    torch.manual_seed(0)
    model = build_model(name).double().to(device)
    optimizer = Adam(model.parameters(), LR)
    before = [p.detach().clone() for p in model.parameters()]
    loss = torch.nn.functional.cross_entropy(model(x[order].to(device)), y[order].to(device))
    loss.backward()
    for p in model.parameters():
        p.grad.mul_(1 + distortion)
    gradients = [p.grad.detach().clone().cpu() for p in model.parameters()]
    optimizer.step()
    pairs = zip(model.parameters(), before, strict=True)
    updates = [(p.detach() - old).cpu() for p, old in pairs]
    return loss.item(), gradients, updates


def additions(name):
    """How many numbers are added up, one after the other, on the way to a gradient."""
    n = 70 * SHAPES[name][1] * SHAPES[name][2]  # a weight's gradient: over images and positions
    for weight in build_model(name).parameters():
        if weight.ndim > 1:
            # forward over a layer's inputs, backward over its outputs
            n += weight.numel() // weight.shape[0] + weight.numel() // weight.shape[1]
    return n


def assert_same_first_step(name, step, other):
    """Two first steps agree within the rounding of their sums.

    A sum of n numbers has a relative error of at most about n times the unit roundoff, whatever
    its order. Two orders differ by at most twice that: this bounds the gradients, relative to
    the largest of their tensor. Adam's first update, -lr g / (|g| + eps), changes by
    lr eps d / (|g| - d + eps)^2 at most if g changes by d < |g|, and by 2 lr in any case: a
    gradient near zero may move its weight either way, all others must agree.
    """
    relative = 2 * additions(name) * UNIT_ROUNDOFF
    assert abs(step[0] - other[0]) <= relative * abs(step[0])
    checked = 0
    for g, u, h, v in zip(*step[1:], *other[1:], strict=True):
        change = relative * g.abs().max()
        assert ((g - h).abs() <= change).all()
        distance = (g.abs() - change).clamp(min=0)
        bound = (LR * EPS * change / (distance + EPS) ** 2).clamp(max=2 * LR)
        rounding = 8 * UNIT_ROUNDOFF * LR + 2 * UNIT_ROUNDOFF  # of the update, and of the weight
        assert ((u - v).abs() <= bound + rounding).all()
        checked += int((bound < 1e-3 * LR).sum())
    assert checked > 0.9 * sum(g.numel() for g in step[1])


def test_the_rate_of_the_first_step_is_a_float32_number():
    """The rate of `Adam` is one on a GPU; another rate would let the devices differ."""
    assert torch.tensor(LR).item() == LR


@pytest.mark.parametrize("name", ["fnn", "cnn", "residual_cnn"])
def test_another_order_of_images_gives_the_same_first_step(name):
    """What the comparison of devices allows is checked here without a GPU."""
    step = first_step(name, "cpu")
    order = torch.randperm(70, generator=torch.Generator().manual_seed(1))
    other = first_step(name, "cpu", order)
    assert not torch.equal(step[1][0], other[1][0])
    assert_same_first_step(name, step, other)
    with pytest.raises(AssertionError):
        assert_same_first_step(name, step, first_step(name, "cpu", distortion=1e-8))


@cuda
@pytest.mark.parametrize("name", ["fnn", "cnn", "residual_cnn"])
def test_the_gpus_first_step_is_the_cpus(name):
    assert_same_first_step(name, first_step(name, "cpu"), first_step(name, "cuda"))


@cuda
def test_the_gpus_losses_are_the_cpus():
    """After two epochs, too, in which a weight whose gradients are near zero may differ."""
    _, gpu = train("cnn", "plain", "cuda", epochs=2)
    _, cpu = train("cnn", "plain", "cpu", epochs=2)
    torch.testing.assert_close(gpu, cpu, rtol=0, atol=1e-6)


@cuda
def test_a_gpu_is_measured(tmp_path):
    """The table of epochs, the profiles and the trials, in a small size."""
    device = torch.device("cuda", torch.cuda.current_device())
    rows = gpu.bench(device, str(tmp_path), quick=True)
    assert all(row["epoch_s"] > 0 and row["bound_s"] > 0 for row in rows)
    profiles.measure(device, str(tmp_path), quick=True)
    (path,) = tmp_path.glob("gpu/*.json")
    content = json.loads(path.read_text())
    kernels = content["kernels"]
    assert len(kernels) > 10 and not [row for row in kernels if "aten::" in row["kernel"]]
    assert all(row["of_copy_rate"] > 0 for row in content["operations"])
    assert [row for row in content["trials"] if row.get("failed")] == []


KEEP_THE_FUNCTION = [
    ("vit", "width 500, products padded to 504"),
    ("mixer", "biases in the epilogue"),
    ("resnet50", "biases in the epilogue"),
    ("resnet50", "batch norm and activation compiled"),
]
SIZES_OF_TRIALS = {
    "vit": dict(width=20, depth=2, heads=2, head_width=6),  # the width is no multiple of 8
    "mixer": dict(width=16, depth=2),
    "resnet50": dict(width=8, blocks=(1, 2)),
}


def logits_and_gradients(name, change, device, dtype):
    """Of one batch: its logits, and all gradients as one vector; bf16 is autocast's."""
    torch.manual_seed(0)
    model = build(name, image_shape=(3, 16, 16), classes=10, **SIZES_OF_TRIALS[name])
    x = torch.rand(32, 3, 16, 16)
    exact = dtype == torch.float64
    model, x = (thing.to(device, torch.float64 if exact else None) for thing in (model, x))
    model.to(memory_format=torch.channels_last)
    with change.context():
        if change.prepare is not None:
            change.prepare(model)
        with torch.autocast(device, torch.bfloat16, enabled=not exact):
            logits = model(x)
        labels = torch.arange(32, device=device) % 10
        torch.nn.functional.cross_entropy(logits.to(x.dtype), labels).backward()
    gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
    return logits.detach().double(), gradients.double()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=cuda)])
@pytest.mark.parametrize("name, change", KEEP_THE_FUNCTION)
def test_a_trial_keeps_the_function(name, change, device, monkeypatch):
    """In float64 up to rounding; in bf16 its error is not that of another function."""
    (change,) = [tried for tried in profiles.CHANGES if tried.name == change]
    if device == "cpu":  # compiling C++ takes a minute; this backend divides the work alike
        compiled = partial(torch.compile, backend="aot_eager_decomp_partition")
        monkeypatch.setattr(torch, "compile", compiled)
    exact = logits_and_gradients(name, profiles.BASELINE, device, torch.float64)
    changed = logits_and_gradients(name, change, device, torch.float64)
    torch.testing.assert_close(changed, exact, rtol=1e-9, atol=1e-9)

    plain = logits_and_gradients(name, profiles.BASELINE, device, torch.bfloat16)
    changed = logits_and_gradients(name, change, device, torch.bfloat16)
    for part in range(2):
        error = (changed[part] - exact[part]).norm()
        # both round as often or less often; the sums of their errors differ by chance
        assert error < 2 * (plain[part] - exact[part]).norm()
