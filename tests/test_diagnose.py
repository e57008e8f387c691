"""What `diagnose` says of models that learn, of models that do not, and of what people hand in.

Most dead models here are known from public reports: adapters whose two matrices are both zero,
norms over a single element, layers in a Python list, weights that round to zero.
"""

import math
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from zeroinit import diagnose, initialize
from zeroinit.basics.errors import Refused

WIDTH = 16
CLASSES = 4


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def points(n=64):
    """Inputs and classes; the classes cannot be learned but by heart."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, WIDTH, generator=generator)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def pictures(n=32, side=8):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 3, side, side, generator=generator)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def texts(n=32):
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(20, (n, 6), generator=generator)
    return x, x[:, -1] % CLASSES


def chain(depth, activation, norm=None, draw=None):
    """A chain of linear layers with an activation behind each but the last."""
    layers = []
    for _ in range(depth):
        linear = nn.Linear(WIDTH, WIDTH)
        if draw:
            draw(linear.weight)
            nn.init.zeros_(linear.bias)
        layers += [linear, *([norm(WIDTH)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def verdict(*args, **kwargs):
    return "\n".join(diagnose(*args, **kwargs).verdict)


# ------------------------------------------------------------------------------------------------
# Models that learn
# ------------------------------------------------------------------------------------------------
class Residual(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return x + self.layer(x)


class Encoder(nn.Module):
    """A transformer with its norms behind the branches, and dropout."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Embedding(20, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.2, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.stem = nn.Embedding(20, WIDTH)
        self.rnn = kind(WIDTH, WIDTH, 2, batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        return self.head(self.rnn(self.stem(x))[0][:, -1])


def resnet():
    from torchvision.models import resnet18

    return resnet18(num_classes=CLASSES)


def vision_transformer():
    from torchvision.models import VisionTransformer

    return VisionTransformer(8, 4, 2, 2, 32, 64, num_classes=CLASSES)  # its head is zero


LEARNING = {
    "deep ReLU, He": (lambda: chain(30, nn.ReLU, draw=nn.init.kaiming_normal_), points, {}),
    "deep ReLU, batch norm": (lambda: chain(30, nn.ReLU, nn.BatchNorm1d), points, {}),
    "deep ReLU, layer norm": (lambda: chain(30, nn.ReLU, nn.LayerNorm), points, {}),
    "deep sigmoid, batch norm": (lambda: chain(20, nn.Sigmoid, nn.BatchNorm1d), points, {}),
    "four sigmoid layers": (lambda: chain(4, nn.Sigmoid), points, {}),
    "deep tanh, Xavier": (lambda: chain(20, nn.Tanh, draw=nn.init.xavier_normal_), points, {}),
    "residual": (
        lambda: nn.Sequential(
            *[Residual(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())) for _ in range(30)],
            nn.Linear(WIDTH, CLASSES),
        ),
        points,
        {},
    ),
    "small learning rate": (lambda: chain(3, nn.ReLU), points, dict(lr=1e-6)),
    "small rate of SGD": (lambda: chain(3, nn.ReLU), points, dict(lr=1e-4, optimizer="sgd")),
    "deep, SGD": (
        lambda: chain(20, nn.ReLU, draw=nn.init.kaiming_normal_),
        points,
        dict(lr=0.01, optimizer="sgd"),
    ),
    "dropout": (lambda: chain(3, lambda: nn.Dropout(0.5)), points, dict(lr=1e-5)),
    "bfloat16": (lambda: chain(3, nn.ReLU).bfloat16(), points, {}),
    "transformer, norms behind": (Encoder, texts, {}),
    "LSTM": (lambda: Recurrent(nn.LSTM), texts, {}),
    "GRU": (lambda: Recurrent(nn.GRU), texts, {}),
    "ResNet-18": (resnet, lambda: pictures(16, 32), {}),
    "vision transformer, zero head": (vision_transformer, pictures, {}),
    "zero head": (
        lambda: initialize_to(chain(2, nn.ReLU), "zero_head"),
        points,
        dict(lr=1e-5),
    ),
    "random biases": (lambda: initialize_to(chain(4, nn.ELU), "bias_normal"), points, {}),
}


def initialize_to(model, scheme):
    initialize(model, scheme, generator=torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("name", LEARNING)
def test_what_learns_is_said_to_learn(name):
    build, batch, settings = LEARNING[name]
    said = diagnose(build(), batch=batch(), **settings).verdict
    assert said[0].startswith("learns: "), said


# ------------------------------------------------------------------------------------------------
# Weights with a gradient that do not learn
# ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("settings", [{}, dict(optimizer="sgd", lr=0.1), dict(optimizer="adamw")])
def test_twenty_sigmoid_layers_do_not_learn(settings):
    said = diagnose(chain(20, nn.Sigmoid), batch=points(), **settings)
    assert said.verdict[0] == "does not learn: the output is the same for every input"
    text = "\n".join(said.verdict)
    assert "the signal vanishes from" in text and "the gradient vanishes from" in text
    assert "too slow" in " ".join(said.table.note) and "does not move" in " ".join(said.table.note)


def test_tiny_weights_do_not_learn():
    def tiny(weight):
        nn.init.normal_(weight, std=0.01)

    said = verdict(chain(15, nn.Tanh, draw=tiny), batch=points(), optimizer="sgd", lr=0.1)
    assert not said.startswith("learns:") and "the signal vanishes from 2 on" in said


class Scaled(nn.Linear):
    """A layer whose output, and with it its gradient, is scaled down."""

    def forward(self, x):
        return super().forward(x) * 1e-10


def test_a_weight_that_moves_too_little_is_named_with_its_speed():
    model = Scaled(WIDTH, CLASSES)
    nn.init.constant_(model.weight, 1e-7)
    said = verdict(nn.Sequential(model), batch=points(), optimizer="sgd", lr=1e-3)
    assert said.startswith("learns too slowly to see (0 changes by ")
    assert "too slow to see: 0 (0 changes by " in said


def test_weights_that_are_too_large_to_move():
    model = chain(2, nn.ReLU)
    nn.init.constant_(model[0].weight, 1e35)
    said = verdict(model, batch=points())
    assert said.startswith("does not learn: ")
    assert "does not move: 0: its weights of 1e+35 are too large for updates in float32" in said
    assert "too large for Adam, which squares it" in said


def test_updates_that_bfloat16_rounds_away():
    said = verdict(chain(3, nn.ReLU).bfloat16(), batch=points(), optimizer="sgd", lr=1e-5)
    assert said.startswith("does not learn: no weight changes in 8 updates")
    assert "lost in the rounding of bfloat16" in said


def test_a_learning_rate_of_zero_and_one_that_is_too_large():
    said = verdict(chain(3, nn.ReLU), batch=points(), lr=0.0)
    assert said.startswith("does not learn: ") and "the learning rate is 0" in said
    said = verdict(chain(3, nn.ReLU), batch=points(), lr=30.0, optimizer="sgd")
    assert said.startswith(("does not learn: the loss", "diverges: ")), said


def test_weight_decay_does_not_pass_for_learning():
    model = chain(20, nn.Sigmoid)

    def decaying(parameters, lr):
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.1)

    assert verdict(model, batch=points(), optimizer=decaying).startswith("does not learn: ")


@pytest.mark.parametrize(
    "norm, place",
    [(nn.GroupNorm(8, 8), "(GroupNorm)"), (nn.InstanceNorm2d(8, affine=True), "")],
)
def test_a_norm_over_one_element(norm, place):
    pool = nn.AdaptiveAvgPool2d(1)
    head = nn.Sequential(nn.Flatten(), nn.Linear(8, CLASSES))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), pool, norm, nn.ReLU(), head)
    if not place:
        with pytest.raises(Refused, match="in 3 .InstanceNorm2d.: "):
            diagnose(model, batch=pictures())
        return
    said = verdict(model, batch=pictures())
    assert said.startswith("does not learn") and "the output is the same for every input" in said
    assert f"3 {place} normalises single elements" in said


@pytest.mark.parametrize("lr", [1e-3, 1e-2])
def test_a_norm_that_blows_rounding_up(lr):
    """Behind GroupNorm, inputs differ by more than the rounding of a number, and by rounding."""
    x, y = pictures()
    x = x + 0.5 * y[:, None, None, None]
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 16, 1)]
    layers += [nn.GroupNorm(16, 16), nn.ReLU(), nn.Flatten(), nn.Linear(16, CLASSES)]
    said = verdict(nn.Sequential(*layers), batch=(x, y), lr=lr)
    assert said.startswith("does not learn") and "4 (GroupNorm) normalises single elements" in said


def test_outputs_that_a_relu_holds_at_zero():
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, CLASSES), nn.ReLU())
    model[2].bias.data = torch.tensor([-100.0, -100.0, 1.0, 1.0])
    said = verdict(model, batch=points())
    assert said.startswith("learns in part: 2 of 4 outputs are zero for every input")


def test_layer_norm_of_one_feature():
    model = nn.Sequential(nn.Linear(WIDTH, 1), nn.LayerNorm(1), nn.Linear(1, CLASSES))
    said = verdict(model, batch=points())
    assert said.startswith("does not learn") and "1 (LayerNorm) normalises single elements" in said


def test_depthwise_features_that_vanish():
    """He's fan_out counts all output channels, of which a depthwise filter reaches one."""
    layers = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()]
    for _ in range(6):
        layers += [nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.ReLU()]
        layers += [nn.Conv2d(64, 64, 1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            nn.init.zeros_(module.bias)
    assert "the signal vanishes from" in verdict(model, batch=pictures(16, 12), lr=1e-4)


# ------------------------------------------------------------------------------------------------
# Every parameter is watched
# ------------------------------------------------------------------------------------------------
def zeros(*shape):
    return nn.Parameter(torch.zeros(*shape))


class AdapterLayers(nn.Module):
    def __init__(self, D):
        super().__init__()
        self.base = nn.Linear(D, D).requires_grad_(False)
        self.down, self.up = nn.Linear(D, 2, bias=False), nn.Linear(2, D, bias=False)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class AdapterOfLinear(nn.Linear):
    def __init__(self, D):
        super().__init__(D, D)
        self.requires_grad_(False)
        self.down, self.up = zeros(2, D), zeros(D, 2)

    def forward(self, x):
        return super().forward(x) + x @ self.down.T @ self.up.T


class AdapterOfItsOwn(nn.Module):
    def __init__(self, D):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(D, D) / D**0.5, requires_grad=False)
        self.down, self.up = zeros(2, D), zeros(D, 2)

    def forward(self, x):
        return F.linear(x, self.weight) + x @ self.down.T @ self.up.T


class AdapterInWeight(nn.Linear):
    """As loralib does it: the product of both is added to the weight."""

    def __init__(self, D):
        super().__init__(D, D)
        self.requires_grad_(False)
        self.down, self.up = zeros(2, D), zeros(D, 2)

    def forward(self, x):
        return F.linear(x, self.weight + self.up @ self.down, self.bias)


class LowRank(nn.Module):
    def __init__(self, D):
        super().__init__()
        self.down, self.up = zeros(2, D), zeros(D, 2)

    def forward(self, weight):
        return weight + self.up @ self.down


def adapter_in_a_parametrization(D):
    linear = nn.Linear(D, D).requires_grad_(False)
    nn.utils.parametrize.register_parametrization(linear, "weight", LowRank(D))
    return linear


class AdapterInADict(nn.Module):
    def __init__(self, D):
        super().__init__()
        self.base = nn.Linear(D, D).requires_grad_(False)
        self.pair = nn.ParameterDict(dict(down=zeros(2, D), up=zeros(D, 2)))

    def forward(self, x):
        return self.base(x) + x @ self.pair["down"].T @ self.pair["up"].T


@pytest.mark.parametrize(
    "adapter",
    [
        AdapterLayers,
        AdapterOfLinear,
        AdapterOfItsOwn,
        AdapterInWeight,
        adapter_in_a_parametrization,
        AdapterInADict,
    ],
)
def test_adapters_of_two_zero_matrices(adapter):
    head = nn.Linear(WIDTH, CLASSES).requires_grad_(False)
    said = verdict(nn.Sequential(adapter(WIDTH), nn.ReLU(), head), batch=points())
    assert said.startswith("does not learn: 2 of 2 layers stay without a gradient")
    pair = said.splitlines()[1]
    assert pair.startswith("never wake: 0.") and "both zero and wait for each other" in pair
    assert "down" in pair and "up" in pair


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_every_matrix_of_a_recurrent_layer(kind):
    model = Recurrent(kind)
    rows = diagnose(model, batch=texts()).table.layer.tolist()
    assert {f"rnn.{name}" for name, _ in model.rnn.named_parameters()} <= set(rows)


def test_an_lstm_of_zeros():
    model = Recurrent(nn.LSTM)
    for parameter in model.rnn.parameters():
        nn.init.zeros_(parameter)
    said = diagnose(model, batch=texts())
    assert said.verdict[0] == "does not learn: the output is the same for every input"
    pair = "rnn.weight_ih_l0 and rnn.weight_ih_l1 are both zero and wait for each other"
    assert any(pair in sentence for sentence in said.verdict)
    never = said.table.layer[said.table.wakes.isna()].tolist()
    assert set(never) == {
        "stem",
        "rnn.weight_ih_l0",
        "rnn.weight_hh_l0",
        "rnn.bias_ih_l0",
        "rnn.bias_hh_l0",
        "rnn.weight_ih_l1",
    }


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.hidden = [nn.Linear(WIDTH, WIDTH) for _ in range(2)]

    def forward(self, x):
        x = self.stem(x).relu()
        for layer in self.hidden:
            x = layer(x).relu()
        return self.head(x)


class OnlyListed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(WIDTH, CLASSES)]

    def forward(self, x):
        return self.layers[0](x)


def test_layers_in_a_list_are_named():
    said = verdict(Listed(), batch=points())
    assert said.startswith("learns in part: 4 tensors of the forward pass are not in parameters()")
    assert "hidden[0].weight" in said and "nn.ModuleList" in said
    assert "float64 control did not run" not in said


def test_a_model_without_parameters_is_called_that():
    said = verdict(OnlyListed(), batch=points())
    assert said.startswith("does not learn: the model has no parameters")
    assert "layers[0].weight" in said
    assert verdict(nn.Flatten()) == "does not learn: the model has no parameters"


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("used", "unused", "detached", "chosen"):
            setattr(self, name, nn.Linear(WIDTH, CLASSES))

    def forward(self, x):
        chosen = F.one_hot(self.chosen(x).argmax(-1), CLASSES)
        return self.used(x) + self.detached(x).detach() + chosen


def test_unused_and_cut_off_parameters_are_told_apart():
    said = diagnose(Branching(), batch=points()).verdict
    assert "not used in the forward pass: unused" in said
    assert "cut off from the loss by detach: detached" in said
    assert "cut off from the loss by argmax: chosen" in said


def test_tied_tensors_name_each_other():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Embedding(CLASSES, WIDTH)
            self.head = nn.Linear(WIDTH, CLASSES, bias=False)
            self.head.weight = self.stem.weight

        def forward(self, x):
            return self.head(self.stem(x).mean(1))

    x = torch.randint(CLASSES, (32, 6))
    note = diagnose(Tied(), "zero_head", batch=(x, x[:, 0])).table.note.tolist()
    assert note == ["tied to head.weight"]


# ------------------------------------------------------------------------------------------------
# Causes
# ------------------------------------------------------------------------------------------------
class Gated(nn.Module):
    """A gate of zeros behind a ReLU, and what it multiplies."""

    def __init__(self):
        super().__init__()
        self.stem, self.branch = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.gate, self.act = nn.Linear(WIDTH, 1, bias=False), nn.ReLU()
        self.head = nn.Linear(WIDTH, CLASSES)
        nn.init.zeros_(self.gate.weight)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.act(self.gate(x)) * self.branch(x).tanh())


def test_a_gate_behind_a_relu():
    said = verdict(Gated(), batch=points())
    assert said.startswith("learns in part: 2 of 4 layers stay without a gradient")
    assert "branch: a product multiplies it by zero (it waits for gate)" in said
    assert "gate: no gradient passes act (ReLU)" in said


class Rounded(nn.Linear):
    def __init__(self, *sizes, scale, straight_through):
        super().__init__(*sizes)
        self.scale, self.straight_through = scale, straight_through

    def forward(self, x):
        rounded = (self.weight * self.scale).round() / self.scale
        if self.straight_through:
            rounded = self.weight + (rounded - self.weight).detach()
        return F.linear(x, rounded, self.bias)


def rounded_chain(**kwargs):
    model = nn.Sequential(
        Rounded(WIDTH, WIDTH, **kwargs), nn.ReLU(), Rounded(WIDTH, CLASSES, **kwargs)
    )
    for layer in (model[0], model[2]):
        nn.init.uniform_(layer.weight, -0.4, 0.4)
        nn.init.zeros_(layer.bias)
    return model


def test_rounding_without_a_straight_through_gradient():
    said = verdict(rounded_chain(scale=64, straight_through=False), batch=points())
    only_biases = "learns in part: only biases learn, and 2 of 2 layers stay without a gradient"
    assert said.startswith(only_biases)
    assert "round in 0 (Rounded) has no gradient: it is zero almost everywhere" in said


def test_biases_that_learn_alone():
    """Hidden layers whose weights get no gradient still fit by their biases."""
    exact = dict(scale=64, straight_through=False)
    hidden = [Rounded(WIDTH, 64, **exact), nn.ReLU(), Rounded(64, 64, **exact), nn.ReLU()]
    x, _ = points()
    target = x[:, :CLASSES].argmax(1)
    model = nn.Sequential(*hidden, Rounded(64, CLASSES, **exact))
    said = verdict(model, batch=(x, target), lr=1e-2)
    assert said.startswith("learns in part: only biases learn, and 3 of 3 layers stay without")


def test_weights_that_all_round_to_zero():
    said = verdict(rounded_chain(scale=1, straight_through=True), batch=points())
    assert said.startswith("does not learn") and "0 and 2 wait for each other" in said
    assert verdict(rounded_chain(scale=64, straight_through=True), batch=points()).startswith(
        "learns: "
    )


@pytest.mark.parametrize("bias, loss", [(-0.5, None), (-0.5, F.mse_loss)])
def test_relu_on_the_output(bias, loss):
    x, _ = points()
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, 1), nn.ReLU())
    nn.init.normal_(model[2].weight, std=0.01)
    nn.init.constant_(model[2].bias, bias)
    said = verdict(model, batch=(x, x[:, :2].abs().sum(1, keepdim=True)), loss=loss)
    assert said.startswith("does not learn") and "no gradient passes 3 (ReLU)" in said


def test_saturated_sigmoids_are_named():
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.Sigmoid(), nn.Linear(8, CLASSES))
    nn.init.constant_(model[0].bias, 300.0)
    said = verdict(model, batch=points())
    assert "no gradient passes 1 (Sigmoid)" in said or "saturated" in said


@pytest.mark.parametrize("hook", ["parametrizations", "old"])
def test_spectral_norm_of_a_zero_weight(hook):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        utils = nn.utils.parametrizations if hook == "parametrizations" else nn.utils
        layer = nn.Linear(WIDTH, WIDTH)
        nn.init.zeros_(layer.weight)
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH), utils.spectral_norm(layer))
        said = verdict(model, batch=points())
    assert said.startswith("diverges: the loss is nan at update 1: 0/0 in 1 (")


def test_weight_norm_in_both_forms():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for utils in (nn.utils, nn.utils.parametrizations):
            model = nn.Sequential(utils.weight_norm(nn.Linear(WIDTH, 8)), nn.Linear(8, CLASSES))
            model(points()[0])
            said = diagnose(model, batch=points())
            assert said.verdict[0].startswith("learns: ")
            assert len(said.table) >= 3  # both tensors of the weight, and the second layer


def test_numbers_that_are_not_finite():
    x, y = points()
    spoiled = x.clone()
    spoiled[3, 3] = math.nan
    assert verdict(chain(2, nn.ReLU), batch=(spoiled, y)).endswith(": the batch holds nan")
    model = chain(2, nn.ReLU)
    with torch.no_grad():
        model[2].weight[0, 0] = math.inf
    assert verdict(model, batch=(x, y)).endswith("2.weight holds inf")


def test_rounding_alone_is_said():
    class Router(nn.Module):
        """The weight of the chosen expert is divided by itself."""

        def __init__(self):
            super().__init__()
            self.gate, self.head = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, CLASSES)

        def forward(self, x):
            top = self.gate(x).softmax(-1).topk(1).values
            return self.head(x) * (top / top.sum(-1, keepdim=True))

    said = verdict(Router(), batch=points())
    assert "by rounding alone: gate" in said or "a gradient: gate" in said, said


# ------------------------------------------------------------------------------------------------
# What people hand in
# ------------------------------------------------------------------------------------------------
class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(WIDTH, 8), nn.Linear(WIDTH, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, a, b):
        return self.head((self.left(a) + self.right(b)).relu())


def test_batches_of_all_kinds():
    x, y = points()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=32)
    for batch in (
        x,
        x.numpy(),
        (x.numpy().astype(np.float64), y.numpy().astype(np.int32)),
        (x.double(), y.float()),
        (x, F.one_hot(y).float()),
        (x, y[:, None].int()),
        loader,
    ):
        assert verdict(chain(2, nn.ReLU), batch=batch).startswith("learns: "), type(batch)


def test_several_inputs():
    x, y = points()
    for batch in ((x, x), (x, x, y), ((x, x), y), dict(a=x, b=x), (dict(a=x, b=x), y)):
        assert verdict(TwoInputs(), batch=batch).startswith("learns: "), type(batch)
    labelled = dict(a=x.numpy(), b=x.numpy(), labels=y.numpy())
    assert verdict(TwoInputs(), batch=labelled).startswith("learns: ")


def test_regression():
    x, _ = points()
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 1))
    for target in (x[:, 0], x[:, :1], x[:, 0].numpy(), 1000 + x[:, :1], 1e-3 * x[:, :1]):
        assert verdict(model, batch=(x, target)).startswith("learns: ")


@pytest.mark.parametrize(
    "optimizer",
    [
        "AdamW",
        "rmsprop",
        torch.optim.AdamW,
        torch.optim.NAdam,
        torch.optim.Adagrad,
        torch.optim.LBFGS,
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9),
    ],
)
def test_optimizers_of_all_kinds(optimizer):
    said = verdict(chain(2, nn.ReLU), batch=points(), optimizer=optimizer, lr=1e-2)
    assert said.startswith("learns: "), said


def meta_model():
    with torch.device("meta"):
        return chain(2, nn.ReLU)


def lazy_model():
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(CLASSES))


def complex_model():
    return nn.Sequential(nn.Linear(WIDTH, CLASSES, dtype=torch.cfloat))


@pytest.mark.parametrize(
    "build, settings, message",
    [
        (meta_model, {}, "0.weight is on the meta device"),
        (meta_model, dict(batch=points()), "0.weight is on the meta device"),
        (lazy_model, {}, "0 (LazyLinear) has no weight before its first forward pass"),
        (complex_model, dict(batch=points()[0].cfloat()), "no tensor of real numbers"),
        (lambda: chain(2, nn.ReLU), dict(batch=points()[0][:, :3]), "on this batch in 0 (Linear)"),
        (TwoInputs, {}, "batch"),
        (lambda: chain(2, nn.ReLU), dict(batch=(points()[0], points()[1] + 9)), "count from 0"),
        (lambda: chain(2, nn.ReLU), dict(batch="x"), "not str"),
        (lambda: chain(2, nn.ReLU), dict(patience=-1), "patience must be"),
        (lambda: chain(2, nn.ReLU), dict(loss="mse"), "loss must be a function"),
        (lambda: chain(2, nn.ReLU), dict(only="0"), "only needs a scheme"),
        (lambda: chain(2, nn.ReLU), dict(optimizer=3), "optimizer must be"),
        (lambda: chain(2, nn.ReLU).requires_grad_(False), {}, "every parameter is frozen"),
        (lambda: 7, {}, "model must be a torch.nn.Module"),
    ],
)
def test_refusals_are_one_sentence(build, settings, message):
    with pytest.raises(Refused) as caught:
        diagnose(build(), **settings)
    text = str(caught.value)
    assert message in text and "\n" not in text
    if "batch" not in settings:
        assert "on this batch" not in text


def test_lazy_layers_with_a_batch():
    assert verdict(lazy_model(), batch=points()).startswith("learns: ")
    assert verdict(lazy_model(), "bias_normal", points()).startswith("learns: ")


def test_untreated_layers_are_counted():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(288, CLASSES)
    )
    said = diagnose(model, "bias_normal", pictures(), strict=False).verdict
    assert any(s.startswith("not treated by bias_normal: 1 layer") for s in said), said


def test_the_model_and_its_gradients_stay_as_they_are():
    model = chain(20, nn.Sigmoid)
    before = [p.clone() for p in model.parameters()]
    state = torch.get_rng_state()
    diagnose(model, batch=points())
    assert torch.equal(torch.get_rng_state(), state)
    for old, parameter in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, parameter) and parameter.grad is None


class ScaledLayer(nn.Module):
    """A linear layer whose output is multiplied by a scalar parameter, as Fixup adds them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * self.layer(x)


def test_a_scalar_parameter_has_no_neurons_to_compare():
    verdict = diagnose(ScaledLayer(), None, (torch.randn(16, 6), torch.arange(16) % 3)).verdict
    assert verdict[0].startswith("learns"), verdict


def test_a_plot_leaves_the_settings_of_later_plots_alone():
    plt.switch_backend("agg")  # the first figure would choose one
    before = plt.rcParams.copy()
    diagnose(chain(2, nn.ReLU), "zero", points()).plot()
    plt.close()
    assert plt.rcParams == before


# ------------------------------------------------------------------------------------------------
# Statements that were wrong: training the same model by hand, in float64, showed it
# ------------------------------------------------------------------------------------------------
def zero_weights(model):
    """Zero weights and random biases, so that a layer wakes in each update."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
    return model


def test_layers_that_wake_in_further_updates_are_given_their_updates():
    """They were said to wake only after all further updates, of which there were 10 or more."""
    model = zero_weights(chain(5, nn.Tanh))
    said = verdict(model, batch=points(), steps=3, lr=0.03)
    assert "0, 2 and 4: the first ones come at updates 4 to 6" in said
    assert list(diagnose(model, batch=points(), steps=6, lr=0.03).table.wakes) == [6, 5, 4, 3, 2, 1]


def test_a_layer_that_waits_for_one_that_wakes_next():
    """This ended with a KeyError."""
    model = zero_weights(chain(5, nn.Tanh))
    said = verdict(model, batch=points(), steps=4, lr=0.03, patience=0)
    assert "2: it comes with the next update" in said


def test_equal_inputs_are_called_equal():
    """Their mean is rounded, and so they were said to differ by 1e-7."""
    x, y = points()
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    said = verdict(model, batch=(x[:1].repeat(64, 1), y))
    assert said.startswith("does not learn: all inputs in the batch are the same")
    assert "lost in" not in said


def test_a_mean_of_normalised_numbers_leaves_rounding():
    """The layer behind it was blamed, whose input differs by rounding alone."""
    x, y = pictures()
    layers = [nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    said = verdict(nn.Sequential(*layers, nn.Linear(8, CLASSES)), batch=(x, y))
    assert said.startswith("does not learn, 2 of 2 layers by rounding alone")
    assert "what differs between inputs is lost in 2 (AdaptiveAvgPool2d)" in said


def test_of_two_factors_that_are_zero_the_one_that_holds_the_layer_is_named():
    """The gate, of which sigmoid makes 0.5, was said to let nothing through."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.value, self.gate = nn.Linear(WIDTH, 8), nn.Linear(WIDTH, 8)
            self.head = nn.Linear(8, CLASSES)

        def forward(self, x):
            return self.head(self.value(x) * self.gate(x).sigmoid())

    said = verdict(Gated(), "zero", batch=points())
    assert "never wake: value and head are both zero and wait for each other" in said
    assert "gate: no gradient passes head (Linear)" in said


def test_a_network_that_learns_by_rounding_does_not_learn_too_slowly_to_see():
    """With 10 classes, the loss of such a network went from 2.50 to 1.95 in 80 updates."""
    layers = []
    for channels in (3, 16):
        layers += [nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ELU()]
    pool = nn.AdaptiveAvgPool2d(1)
    model = nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(16, CLASSES))
    said = verdict(model, "bias_normal", batch=pictures(side=16))
    assert said.startswith("learns, 5 of 5 layers by rounding alone: the loss goes from ")


def test_gradients_that_are_too_small_have_one_sentence():
    """Each size of a gradient had a sentence of its own, and a Linear was said to block others."""
    torch.manual_seed(0)
    deep = nn.Sequential(*[nn.Linear(6, 6, bias=False) for _ in range(30)], nn.Linear(6, CLASSES))
    x, y = points(16)
    for parameter in deep.parameters():
        parameter.data *= 0.01
    said = diagnose(deep, batch=(x[:, :6], y)).verdict
    assert sum("its gradient rounds to zero" in sentence for sentence in said) == 1
    assert any("(Linear), where it rounds to zero" in sentence for sentence in said)
    less_deep = nn.Sequential(*[nn.Linear(6, 6, bias=False) for _ in range(12)])
    for parameter in less_deep.parameters():
        parameter.data *= 1e-3
    said = diagnose(less_deep, batch=(x[:, :6], x[:, 6:12])).verdict
    still = [sentence for sentence in said if "does not move" in sentence]
    assert len(still) == 1 and ": their gradients, of at most" in still[0]


def test_dropout_that_drops_all_units_by_chance_does_not_seal_a_model():
    """Outputs are looked at under the random numbers of the first update, which may drop all."""
    x, y = points()
    for seed in (2, 3, 5, 8):
        torch.manual_seed(seed)
        hidden = nn.Linear(WIDTH, 16), nn.ReLU(), nn.Dropout(0.98)
        model = nn.Sequential(*hidden, nn.Linear(16, CLASSES))
        assert verdict(model, batch=(x[:4], y[:4])).startswith("learns")


def test_dropout_is_no_signal():
    """All inputs of the last layer are zero, whatever is dropped."""
    hidden = nn.Linear(WIDTH, 16), nn.ReLU(), nn.Dropout(0.5)
    model = nn.Sequential(*hidden, nn.Linear(16, CLASSES))
    assert verdict(model, "zero", batch=points()).startswith("does not learn")
