"""`initialize` and `diagnose` on made-up models: they do and say what is true, or raise an error of
their own and leave the model as it was."""

import math
import random
import warnings

import pytest
import torch
import torch.nn as nn
from torch.nn.utils import prune

from zeroinit import diagnose, initialize
from zeroinit.basics.errors import Refused
from zeroinit.schemes.fills import SCHEMES, scheme_arguments
from zeroinit.schemes.initialization import schemes

hypothesis = pytest.importorskip("hypothesis")
given, settings, strategies = hypothesis.given, hypothesis.settings, hypothesis.strategies
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64]


class Tuple(nn.Module):
    """Returns a tuple, or a dict."""

    def __init__(self, inner, as_dict):
        super().__init__()
        self.inner, self.as_dict = inner, as_dict

    def forward(self, x):
        out = self.inner(x)
        return dict(out=out, x=x) if self.as_dict else (out, x)


class Residual(nn.Module):
    """A residual branch with a scale, and perhaps a token."""

    def __init__(self, inner, size, name):
        super().__init__()
        self.inner = inner
        self.register_parameter(name, nn.Parameter(torch.rand(size)))

    def forward(self, x):
        return x + self.inner(x) * next(iter(self._parameters.values()))


class Adapted(nn.Linear):
    """A linear layer with a bare adapter, perhaps of names that say nothing."""

    def __init__(self, size, rank, names):
        super().__init__(size, size + 1)
        self.register_parameter(names[0], nn.Parameter(torch.rand(rank, size)))
        self.register_parameter(names[1], nn.Parameter(torch.rand(size + 1, rank)))


class Unknown(nn.Module):
    """A layer that no scheme knows."""

    def __init__(self, size):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.rand(size, size))
        self.gamma, self.beta = nn.Parameter(torch.rand(size)), nn.Parameter(torch.rand(size))

    def forward(self, x):
        return x


class Raises(nn.Linear):
    """A linear layer that lacks what linear layers have."""

    @property
    def in_features(self):
        raise LookupError("nothing here")

    @in_features.setter
    def in_features(self, value):
        pass


def plain_layers(size):
    """Functions that make a layer of torch."""
    return [
        lambda: nn.Linear(size, size + 1, bias=size % 2 == 0),
        lambda: nn.Conv2d(size, 2 * size, 3, groups=size, bias=size % 2 == 1),
        lambda: nn.ConvTranspose1d(size, size, 2),
        lambda: nn.BatchNorm2d(size, affine=size != 2),
        lambda: nn.LayerNorm(size),
        lambda: nn.RMSNorm(size),
        lambda: nn.Embedding(5, size, padding_idx=0),
        lambda: nn.LSTM(size, size + 1, num_layers=2, bidirectional=size == 2),
        lambda: nn.LSTM(size, size + 1, proj_size=size),
        lambda: nn.GRU(size, size, bias=False),
        lambda: nn.RNNCell(size, size),
        lambda: nn.MultiheadAttention(2 * size, 2, kdim=size, bias=size % 2 == 0),
        lambda: nn.MultiheadAttention(2 * size, 2, add_bias_kv=True),
        lambda: nn.TransformerEncoderLayer(2 * size, 2, 4 * size),
        lambda: nn.Bilinear(size, size, size),
        lambda: nn.Linear(size, 0),
        nn.ReLU,
    ]


def odd_layers(size, dtype):
    """Functions that make a layer whose weight is no plain tensor of floating-point numbers."""

    def with_weight(make):
        layer = nn.Linear(size, size)
        layer.weight = nn.Parameter(make(layer.weight.detach()), requires_grad=False)
        return layer

    def inference():
        with torch.inference_mode():
            return torch.rand(size, size)

    utils = nn.utils
    return [
        lambda: nn.LazyLinear(size),
        lambda: nn.LazyConv2d(size, 3),
        nn.LazyBatchNorm1d,
        lambda: utils.weight_norm(nn.Linear(size, size)),
        lambda: utils.spectral_norm(nn.Conv1d(size, size, 2)),
        lambda: utils.parametrizations.weight_norm(nn.LSTM(size, size), "weight_hh_l0"),
        lambda: utils.parametrizations.weight_norm(nn.Linear(size, size)),
        lambda: utils.parametrizations.orthogonal(nn.Linear(size, size)),
        lambda: utils.parametrizations.spectral_norm(nn.Linear(size, size)),
        lambda: prune.l1_unstructured(nn.Linear(size, size), "weight", 0.5),
        lambda: prune.l1_unstructured(nn.GRU(size, size), "weight_ih_l0", 0.5),
        lambda: nn.Linear(size, size, device="meta"),
        lambda: nn.GRU(size, size, device="meta"),
        lambda: nn.Linear(size, size, dtype=dtype),
        lambda: nn.LayerNorm(size, dtype=dtype),
        lambda: with_weight(lambda w: (w * 9).to(torch.int8)),
        lambda: with_weight(lambda w: w.to_sparse()),
        lambda: with_weight(lambda w: w[:1].expand(size, size)),
        lambda: with_weight(lambda w: w.T),
        lambda: with_weight(lambda w: w.to(torch.float8_e4m3fn)),
        lambda: with_weight(lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8)),
        lambda: with_weight(lambda w: w[0]),
        lambda: with_weight(lambda w: inference()),
        lambda: Adapted(size, 1, ("lora_A", "lora_B")),
        lambda: Adapted(size, 1, ("first", "second")),
        lambda: Unknown(size),
        lambda: Raises(size, size),
    ]


def make_model(choose, depth=0):
    """A model of random parts, nested up to three deep."""
    kinds = ["sequential", "dict", "tuple", "residual", "twice"]
    kind = choose.choice(kinds) if depth < 3 else "layer"
    if kind == "layer" or choose.random() < 0.4 * depth:
        size = choose.randint(1, 4)
        makers = plain_layers(size)
        if choose.random() < 0.3:
            makers = odd_layers(size, choose.choice(DTYPES))
        layer = choose.choice(makers)()
        is_lazy = any(nn.parameter.is_lazy(p) for p in layer.parameters())
        if choose.random() < 0.1 and not is_lazy:
            layer.requires_grad_(False)
        return layer
    inner = [make_model(choose, depth + 1) for _ in range(choose.randint(1, 3))]
    if kind == "tuple":
        return Tuple(inner[0], choose.random() < 0.5)
    if kind == "residual":
        name = choose.choice(["gamma", "layer_scale", "cls_token", "pos_embed", "scale"])
        return Residual(inner[0], choose.randint(1, 4), name)
    if kind == "twice":
        return nn.Sequential(inner[0], nn.ReLU(), inner[0])
    if kind == "dict":
        names = choose.sample(["to_q", "qkv", "lora_A", "adaLN", "zero_conv", "head"], len(inner))
        return nn.ModuleDict(dict(zip(names, inner, strict=True)))
    return nn.Sequential(*inner)


def tie_some(model, choose):
    """Tie two weights of one shape, as one parameter or as one memory; leave a hook or two."""
    layers = [m for m in model.modules() if isinstance(m._parameters.get("weight"), nn.Parameter)]
    layers = [m for m in layers if not nn.parameter.is_lazy(m.weight)]
    choose.shuffle(layers)
    for layer, other in zip(layers, layers[1:], strict=False):
        if layer.weight.shape == other.weight.shape and layer.weight.dtype == other.weight.dtype:
            if choose.random() < 0.5:
                other.weight = layer.weight
            else:
                other.weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
            break
    for layer in layers[:1]:
        layer.register_forward_hook(lambda module, inputs, output: None)


def values(t):
    """A tensor's entries in a form that can be compared; None if it has none."""
    if nn.parameter.is_lazy(t) or t.is_meta:
        return None
    t = t.detach()
    if t.is_quantized:
        t = t.dequantize()
    if t.layout != torch.strided:
        t = t.to_dense()
    return t.clone().to(torch.complex128)


def same(a, b):
    return a is b is None or (a is not None and b is not None and torch.equal(a, b))


# arguments of `initialize`, right and wrong ones, and how often each is given
ARGUMENTS = {
    "head_bias": (0.1, ["log_prior", "prior", 3]),
    "forget_bias": (0.15, [1.0, "1", 1e300]),
    "only": (0.15, ["head", "*weight*", nn.Linear, nn.LSTM, [], "0", 3, "["]),
    "skip": (0.1, ["head", nn.LSTM, "*.bias", nn.Module]),
    "roles": (0.1, [{"*": "layer_scale"}, {"*": ["head", "branch_last"]}, 3]),
    "batch": (0.3, [torch.rand(2, 2), torch.rand(2, 2, 4, 4), (), {}, "x", (torch.rand(2, 2), 3)]),
}
OF_SCHEMES = {"add_bias": [True, False], "groups": ["per_output", "torch", "each"]}


def random_arguments(choose, scheme):
    """Arguments of `initialize` and of the scheme, a few of them wrong."""
    arguments = dict(strict=choose.random() < 0.3)
    for name, (share, choices) in ARGUMENTS.items():
        if choose.random() < share:
            arguments[name] = choose.choice(choices)
    for name, default in scheme_arguments(scheme).items():
        if name in OF_SCHEMES and choose.random() < 0.5:
            arguments[name] = choose.choice(OF_SCHEMES[name])
        if isinstance(default, float) and choose.random() < 0.1:
            arguments[name] = choose.choice([0.0, -1, 1e30, "1", math.nan, True, 10**400])
    return arguments


def row_is_true(row, held):
    """Whether a row of the table says what a tensor holds."""
    sizes = (held.mean(), held.std(correction=0), held.min(), held.max())
    told = (row["mean"], row["std"], row["min"], row["max"])
    return all(
        abs(size.item() - t) <= 1e-12 * (1 + abs(t)) for size, t in zip(sizes, told, strict=True)
    )


def check_refusal(error, model, before):
    """An error has one line, and the model is as it was."""
    assert "\n" not in str(error)
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[n] is p and same(values(p), old) for n, (p, old) in before.items())


def check_row(row, p, old):
    """A row of the table says what a parameter holds; `old`: what it held before."""
    now = values(p)
    if now is None or not now.numel():
        return
    if row["rule"] == "0":
        assert not now.any(), row
    if not p.is_complex() and now.isfinite().all():
        assert row_is_true(row, now.real), row
    is_untouched = row["rule"] == "left alone" or row["rule"].startswith("not treated")
    if is_untouched and old is not None and "tied" not in row:
        assert same(now, old), row


def check_table(table, model, before):
    """Every row of the table is true, and the layers that were not treated are as they were."""
    after = dict(model.named_parameters())
    for row in table.to_dict("records"):
        name = row["parameter"]
        # the others are parts of a parameter, or what a scheme adds
        if name in after and not row["rule"].startswith("new:"):
            _, old = before.get(name, (None, None))
            check_row(row, after[name], old)
    for layer in table.untreated:
        for name, (p, old) in before.items():
            if name.rpartition(".")[0] == layer and "tied" not in table:
                assert same(values(p), old), (name, table.untreated[layer])


def check(seed):
    """Initialize a made-up model, and compare the model with the table, or with what it was."""
    choose = random.Random(seed)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about old functions and empty layers
        model = make_model(choose)
        tie_some(model, choose)
        scheme = choose.choice(list(schemes()))
        arguments = random_arguments(choose, scheme)
        before = {name: (p, values(p)) for name, p in model.named_parameters()}
        state = torch.get_rng_state()
        try:
            table = initialize(model, scheme, torch.Generator().manual_seed(0), **arguments)
        except Refused as error:
            check_refusal(error, model, before)
            outcome = "refused"
        else:
            check_table(table, model, before)
            outcome = "initialized"
    assert torch.equal(torch.get_rng_state(), state)
    return outcome


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(strategies.integers(0, 10**9))
def test_made_up_models(seed):
    check(seed)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, derandomize=True, database=None)
@given(strategies.integers(0, 10**9))
def test_two_thousand_made_up_models(seed):
    check(seed)


# ------------------------------------------------------------------------------------------------
# diagnose
# ------------------------------------------------------------------------------------------------
WIDTH = 6


class Weakened(nn.Module):
    """A model, and what is done to its output."""

    def __init__(self, model, function):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x):
        return self.function(self.model(x))


def zero_pair():
    """Two layers of zeros in a row: neither ever has a gradient."""
    pair = nn.Sequential(
        nn.Linear(WIDTH, WIDTH, bias=False), nn.Tanh(), nn.Linear(WIDTH, WIDTH, bias=False)
    )
    for layer in (pair[0], pair[2]):
        nn.init.zeros_(layer.weight)
    return pair


def runnable_block(choose):
    """A block that takes and gives (B, WIDTH), and passes a signal on."""
    parametrizations = nn.utils.parametrizations
    makers = [
        lambda: nn.Linear(WIDTH, WIDTH),
        lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.GELU()),
        lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh()),
        lambda: Residual(nn.Linear(WIDTH, WIDTH), WIDTH, choose.choice(["gamma", "scale"])),
        lambda: parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
        lambda: parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH)),
        lambda: prune.l1_unstructured(nn.Linear(WIDTH, WIDTH), "weight", 0.3),
        lambda: (
            nn.Sequential(nn.Unflatten(1, (1, WIDTH)), nn.Conv1d(1, 2, 1), nn.MaxPool1d(2))
            .append(nn.Flatten())
            .append(nn.Linear(WIDTH, WIDTH))
        ),
        lambda: nn.LazyLinear(WIDTH),
    ]
    return choose.choice(makers)()


DEAD = {
    "zero pair": zero_pair,
    "detached": lambda: Weakened(nn.Linear(WIDTH, WIDTH), torch.Tensor.detach),
    "rounded": lambda: Weakened(nn.Linear(WIDTH, WIDTH), torch.round),
    "times zero": lambda: Weakened(nn.Linear(WIDTH, WIDTH), lambda out: 0 * out),
    "frozen": lambda: nn.Linear(WIDTH, WIDTH).requires_grad_(False),
    "clamped": lambda: Weakened(nn.Linear(WIDTH, WIDTH), lambda out: (out + 99).clamp(-1, 1)),
}


def freeze(model):
    """Freeze all parameters, lazy ones too, which do not take `requires_grad_`."""
    for p in model.parameters():
        p.requires_grad = False


def runnable_model(choose):
    """A model that takes (B, WIDTH), and what makes it dead, or None."""
    blocks = [runnable_block(choose) for _ in range(choose.randint(0, 3))]
    if len(blocks) > 1 and choose.random() < 0.2:
        blocks[1] = blocks[0]
    dead = choose.choice([None, *DEAD]) if choose.random() < 0.5 else None
    if dead is not None:
        # what comes before never learns, and what comes behind is frozen
        blocks.append(DEAD[dead]())
    head = nn.Linear(WIDTH, 4).requires_grad_(dead is None)
    model = nn.Sequential(*blocks, head)
    if dead == "frozen":
        freeze(model)
    if dead is None and blocks and choose.random() < 0.2:
        freeze(blocks[0])
    kind = choose.random()
    if kind < 0.3:
        model = Tuple(model, as_dict=kind < 0.15)
    for module in model.modules():
        if choose.random() < 0.1:
            module.register_forward_hook(lambda module, inputs, output: None)
    return model, dead


def random_batch(choose):
    """An input, or an input and a target, some of them wrong."""
    x, y = torch.randn(16, WIDTH), torch.randint(4, (16,))
    right = [(x, y), x, (x.double(), y.int()), (x.numpy(), y.numpy()), (x, y[:, None])]
    wrong = [(x, y + 9), (x[:, :2], y), "x", (), {}, {"x": x}, (x, y, y), (x * math.nan, y), x[:0]]
    is_right = choose.random() < 0.8
    return choose.choice(right if is_right else wrong), is_right


SETTINGS = dict(
    lr=[0.0, 1e-3, "1", -1],
    optimizer=["sgd", "adamm", torch.optim.AdamW, 3],
    loss=[None, lambda out, target: 0, nn.CrossEntropyLoss, "mse"],
    scheme=["zero", "orthogonal", "no such scheme", 3],
)


def check_diagnosis(seed):
    """Diagnose a made-up model; what was built dead is not said to learn, nor the other way."""
    choose = random.Random(seed)
    torch.manual_seed(seed)
    settings_of_case = {}
    if choose.random() < 0.15:  # any model, whose input nobody knows
        model, dead, batch, is_right = make_model(choose), None, None, False
        tie_some(model, choose)
    else:
        model, dead = runnable_model(choose)
        batch, is_right = random_batch(choose)
        if choose.random() < 0.15:
            model = model.to(choose.choice(DTYPES))
            is_right = False
        if choose.random() < 0.05:
            model = model.to("meta")
            is_right = False
        if choose.random() < 0.2:
            name = choose.choice(list(SETTINGS))
            settings_of_case[name] = choose.choice(SETTINGS[name])
            is_right = False
        if choose.random() < 0.1:
            batch = None
            is_right = False
    before = {name: values(p) for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    arguments = dict(steps=3, patience=0, control=choose.random() < 0.1) | settings_of_case
    try:
        found = diagnose(model, batch=batch, **arguments)
    except Refused as error:
        assert "\n" not in str(error)
        assert dead is not None or not is_right, error
        return "refused"
    assert torch.equal(torch.get_rng_state(), state)
    for name, p in model.named_parameters():
        assert same(values(p), before[name]), name
        assert nn.parameter.is_lazy(p) or p.is_meta or p.grad is None, name
    answer = found.verdict[0].partition(":")[0].partition(",")[0]
    assert all("\n" not in sentence for sentence in found.verdict)
    repr(found)
    if dead is not None and "scheme" not in settings_of_case:
        assert answer in ("does not learn", "diverges"), (dead, found.verdict)
    if dead is None and is_right:
        assert answer in ("learns", "learns in part"), found.verdict
    return answer


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(strategies.integers(0, 10**9))
def test_diagnoses_of_made_up_models(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch
        check_diagnosis(seed)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, derandomize=True, database=None)
@given(strategies.integers(0, 10**9))
def test_diagnoses_of_two_thousand_made_up_models(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_diagnosis(seed)


def test_both_ends_are_reached():
    outcomes = {check(seed) for seed in range(30)}
    assert outcomes == {"refused", "initialized"}
    assert set(SCHEMES) == set(schemes())
