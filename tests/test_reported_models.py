"""What `diagnose` says of small models as people write them: gates, masks, cuts and saturation.

The answer of each was compared with 300 updates by plain PyTorch.
"""

import math
import warnings

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import prune

from zeroinit import diagnose
from zeroinit.basics.errors import Refused

WIDTH = 16
CLASSES = 4


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def points(n=64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, WIDTH, generator=generator)
    return x, torch.randint(CLASSES, (n,), generator=generator)


def chain(activation=nn.ReLU):
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), activation(), nn.Linear(WIDTH, CLASSES))


class Model(nn.Module):
    """Two layers, and a forward pass of them."""

    def __init__(self, forward, layer=None, head=None):
        super().__init__()
        self.layer = layer or nn.Linear(WIDTH, WIDTH)
        self.head = head or nn.Linear(WIDTH, CLASSES)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


class NoGradient(torch.autograd.Function):
    """The identity, whose backward pass gives nothing."""

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, grad):
        return None


def without_grad(model, x):
    with torch.no_grad():
        features = model.layer(x)
    return model.head(features)


CUT_OFF = {
    "detach": lambda m, x: m.head(x + m.layer(x).detach()),
    "no_grad": without_grad,
    "int": lambda m, x: m.head(x) + m.layer(x)[:, :CLASSES].int(),
    "gt": lambda m, x: m.head(x * (m.layer(x) > 0)),
    "item": lambda m, x: m.head(x) * m.layer(x).mean().item(),
    "topk": lambda m, x: m.head(x.gather(1, m.layer(x).topk(WIDTH).indices)),
    "the backward pass of NoGradient": lambda m, x: m.head(NoGradient.apply(m.layer(x))),
}


@pytest.mark.parametrize("function", CUT_OFF)
def test_a_layer_that_is_cut_off_learns_nothing(function):
    said = diagnose(Model(CUT_OFF[function]), batch=points()).verdict
    assert said[0] == "learns in part: 1 of 2 layers is cut off from the loss"
    assert any(s.startswith("cut off from the loss") and function in s for s in said), said


def test_a_layer_that_is_not_used_is_named():
    said = diagnose(Model(lambda m, x: m.head(x)), batch=points()).verdict
    assert "not used in the forward pass: layer" in said


def filled_bias(value, activation):
    model = chain(activation)
    nn.init.constant_(model[0].bias, value)
    return model


def pruned():
    model = chain()
    prune.random_unstructured(model[0], "weight", amount=1.0)
    return model


def straight_through(weight):
    return weight + (weight.round() - weight).detach()


def rounded(model, x):
    return F.linear(x, straight_through(model.layer.weight)) @ straight_through(model.head.weight).T


STUCK = {
    "dropout of everything": (
        lambda: nn.Sequential(chain(), nn.Dropout(1.0), nn.Linear(CLASSES, CLASSES)),
        "no gradient passes 1 (Dropout)",
    ),
    "hardtanh": (lambda: filled_bias(50.0, nn.Hardtanh), "no gradient passes 1 (Hardtanh)"),
    "ReLU6": (lambda: filled_bias(60.0, nn.ReLU6), "no gradient passes 1 (ReLU6)"),
    "dead ReLU": (lambda: filled_bias(-100.0, nn.ReLU), "no gradient passes 1 (ReLU)"),
    "clamp": (lambda: Model(lambda m, x: m.head((m.layer(x) + 50).clamp(-1, 1))), "clamp is flat"),
    "pruned": (pruned, "all weights become zero by a product with zero: 0.weight_orig"),
    "rounded": (lambda: Model(rounded), "all weights become zero by round: layer and head"),
    "its own difference": (
        lambda: Model(lambda m, x: m.head(m.layer(x) - m.layer(x))),
        "the terms of its gradient cancel",
    ),
    "softmax over one": (
        lambda: Model(
            lambda m, x: m.head(x[:, :1].new_ones(len(x), 1) * F.softmax(m.layer(x), -1)),
            nn.Linear(WIDTH, 1),
            nn.Linear(1, CLASSES),
        ),
        "softmax is over a single element",
    ),
}


@pytest.mark.parametrize("name", STUCK)
def test_the_cause_is_named(name):
    build, cause = STUCK[name]
    said = diagnose(build(), batch=points()).verdict
    assert said[0].startswith("does not learn: "), said
    assert any(cause in sentence for sentence in said), said


def closed_gate(model, x):
    return model.head(x) + torch.sigmoid(model.layer(x)[:, :CLASSES] * 0 - 1000) * model.head(x)


PARTLY = {
    "sign": (lambda m, x: m.head(torch.sign(m.layer(x))), "sign has no gradient"),
    "saturated": (lambda m, x: m.head(F.softmax(m.layer(x) * 1e4, -1)), "is too small"),
    "underflow": (lambda m, x: m.head(x + m.layer(x) * 1e-30 * 1e-30), "gradient rounds to zero"),
    "gate": (closed_gate, "no gradient in 8 updates: layer: "),
}


@pytest.mark.parametrize("name", PARTLY)
def test_one_layer_of_two_is_stuck(name):
    forward, cause = PARTLY[name]
    said = diagnose(Model(forward), batch=points()).verdict
    assert said[0].startswith("learns in part: 1 of 2 layers "), said
    assert any(cause in sentence for sentence in said), said


def test_attention_to_a_single_key():
    attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    model = Model(lambda m, x: m.head(m.layer(*[x[:, None]] * 3)[0][:, 0]), attention)
    said = diagnose(model, batch=points()).verdict
    assert said[0].startswith("learns in part: 2 of 5 layers stay without a gradient"), said
    assert "layer[query] and layer[key]: softmax in layer" in said[1], said


def test_a_hook_that_stops_a_gradient():
    model = chain()
    model[0].weight.register_hook(lambda grad: grad * 0)
    said = diagnose(model, batch=points()).verdict
    assert said[0].startswith("learns in part: 1 of 2 layers stay without a gradient"), said
    assert "no gradient in 8 updates: 0: a hook on it makes its gradient zero" in said


NOT_FINITE = {
    "the logarithm of a number that is not positive": lambda m, x: m.head(m.layer(x).log()),
    "exp of a large number": lambda m, x: m.head((300 * m.layer(x)).exp()),
    "a single number": lambda m, x: m.head(x) / m.layer(x)[:, :1].std(-1, keepdim=True),
    "a division by zero": lambda m, x: m.head(x / m.layer(x * 0).mul(0)),
}


@pytest.mark.parametrize("cause", NOT_FINITE)
def test_the_first_number_that_is_not_finite(cause):
    said = diagnose(Model(NOT_FINITE[cause]), batch=points()).verdict
    assert said[0].startswith("diverges: the loss is nan at update 1: ") and cause in said[0], said


def test_adam_in_half_precision_diverges_as_it_does():
    """The squares of small gradients are zero in float16, and so is Adam's epsilon."""
    said = diagnose(nn.Sequential(*chain()[:2], *chain()).half(), batch=points()).verdict
    assert said[0].startswith("diverges: the loss is nan at update 2"), said


def test_outputs_that_become_constant_are_no_learning():
    model = nn.Sequential(*chain()[:2], *chain()[:2], *chain())
    said = diagnose(model, batch=points(), lr=10.0).verdict
    assert said[0].startswith("does not learn: "), said


def test_inputs_that_are_all_the_same():
    _, y = points()
    said = diagnose(chain(), batch=(torch.ones(len(y), WIDTH), y)).verdict
    assert said == ["does not learn: all inputs in the batch are the same"]


def test_a_loss_that_is_zero_from_the_start():
    model = chain()
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    x, _ = points()
    said = diagnose(model, batch=(x, torch.zeros(len(x), CLASSES)), loss=F.mse_loss).verdict
    assert said[0] == "does not learn: the loss is 0 from the start"
    assert "0 and 2: the loss is at its minimum" in said[1]


def test_a_learning_rate_that_rounding_swallows():
    said = diagnose(chain(), batch=points(), optimizer="sgd", lr=1e-12).verdict
    assert "updates at a learning rate of 1e-12 are lost in the rounding of float32" in said[1]


def inner_gradient(model, x):
    """As physics-informed networks do: the input is made a leaf in the forward pass."""
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        out = model.head(torch.tanh(model.layer(x)))
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    return out + slope.sum(1, keepdim=True)


def with_a_frozen_parameter(dtype):
    model = chain()
    model.extra = nn.Parameter(torch.zeros(3).to(dtype), requires_grad=False)
    return model


LEARNING = {
    "gradients in the forward pass": lambda: Model(inner_gradient),
    "TorchScript": lambda: torch.jit.script(chain()),
    "traced": lambda: torch.jit.trace(chain(), points()[0]),
    "torch.fx": lambda: torch.fx.symbolic_trace(chain()),
    "DataParallel": lambda: nn.DataParallel(chain()),
    "a frozen parameter of int8": lambda: with_a_frozen_parameter(torch.int8),
    "a frozen parameter of float8": lambda: with_a_frozen_parameter(torch.float8_e4m3fn),
    "bilinear": lambda: Model(lambda m, x: m.layer(x, x), nn.Bilinear(WIDTH, WIDTH, CLASSES)),
    "orthogonal": lambda: nn.Sequential(
        nn.utils.parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH)), chain()
    ),
    "softmax before the loss": lambda: nn.Sequential(chain(), nn.Softmax(-1)),
    "a mixed dtype": lambda: Model(
        lambda m, x: m.head(m.layer(x).double()), head=nn.Linear(WIDTH, CLASSES).double()
    ),
}


@pytest.mark.parametrize("name", LEARNING)
def test_what_learns_is_said_to_learn(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        said = diagnose(LEARNING[name](), batch=points()).verdict
    assert said[0].startswith("learns: "), said


def test_complex_weights_keep_their_imaginary_part():
    layers = [nn.Linear(WIDTH, size, dtype=torch.cfloat) for size in (WIDTH, CLASSES)]
    nn.init.zeros_(layers[0].weight)
    with torch.no_grad():
        layers[0].weight.copy_(1j * torch.randn(WIDTH, WIDTH))
    model = Model(lambda m, x: m.head(m.layer(x)).abs(), *layers)
    x, y = points()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = diagnose(model, batch=(x.cfloat(), y))
    assert said.verdict[0].startswith("learns: ")
    assert said.table.distinct[0] == WIDTH and said.table.weight_rank[0] > 2


def batch_of(x=None, y=None):
    right = points()
    return right[0] if x is None else x, right[1] if y is None else y


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(batch=batch_of(y=points()[1] - 1)), "the target has the class -1"),
        (dict(batch=torch.nested.nested_tensor([torch.ones(2, WIDTH)])), "a nested tensor: pad"),
        (dict(batch=torch.ones(2, WIDTH, device="meta")), "batch is on the meta device"),
        (dict(loss=nn.CrossEntropyLoss), "give CrossEntropyLoss()"),
        (dict(lr="fast"), "lr must be a number from 0 on"),
        (dict(lr=math.nan), "lr must be a number from 0 on"),
        (dict(seed="a"), "seed must be a whole number"),
    ],
)
def test_refusals_say_what_is_allowed(settings, message):
    with pytest.raises(Refused) as caught:
        diagnose(chain(), **(dict(batch=points()) | settings))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_targets_that_are_all_ignored():
    said = diagnose(chain(), batch=batch_of(y=torch.full((64,), -100))).verdict
    assert said[0].endswith("every target is -100, which cross entropy ignores")


# ------------------------------------------------------------------------------------------------
# What the loss holds
# ------------------------------------------------------------------------------------------------
def test_a_teacher_in_the_loss_is_not_a_tensor_of_the_model():
    teacher = chain()
    teacher[0].weight.grad = torch.ones_like(teacher[0].weight)
    x, y = points()

    def distil(out, target):
        return F.mse_loss(out.float(), teacher(x))

    said = diagnose(chain(), batch=(x, y), loss=distil).verdict
    assert said[0].startswith("learns: "), said
    assert "in the loss, and not in parameters() of the model, so not trained here: " in said[1]
    assert not any("nn.ModuleList" in sentence for sentence in said), said
    assert teacher[0].weight.grad.unique().item() == 1 and teacher[2].weight.grad is None


def test_a_loss_of_the_weights_of_the_model_itself_is_refused_for_that():
    model = chain()

    def penalized(out, target):
        return F.cross_entropy(out, target) + sum(p.square().sum() for p in model.parameters())

    with pytest.raises(Refused, match="loss= uses parameters of the model"):
        diagnose(model, batch=points(), loss=penalized)
    assert all(p.grad is None for p in model.parameters())


def test_a_difference_by_hand_of_every_output_and_every_target():
    x, _ = points()
    model = nn.Sequential(*chain()[:2], nn.Linear(WIDTH, 1))
    said = diagnose(model, batch=(x, x[:, 0]), loss=lambda out, t: ((out - t) ** 2).mean()).verdict
    assert said[0] == "does not learn: the loss compares each output with every target"
    assert "the loss broadcasts shapes (64, 1) and (64,) to (64, 64)" in said[1]


@pytest.mark.parametrize("is_class", [True, False])
def test_a_mean_over_the_batch(is_class):
    def averaged(model, x):
        return model.head(model.layer(x).relu().mean(0, keepdim=True).expand(len(x), -1))

    x, y = points()
    head = nn.Linear(WIDTH, CLASSES if is_class else 1)
    said = diagnose(Model(averaged, head=head), batch=(x, y if is_class else x[:, 0])).verdict
    assert said[0] == (
        "does not learn: the output is the same for every input in the batch, "
        "and depends on the batch as a whole"
    )


# ------------------------------------------------------------------------------------------------
# Forward passes that differ from one another
# ------------------------------------------------------------------------------------------------
class Counting(nn.Module):
    """A layer that joins in after 100 forward passes."""

    def __init__(self, as_buffer, as_branch):
        super().__init__()
        self.layer, self.head = nn.Linear(WIDTH, CLASSES), nn.Linear(WIDTH, CLASSES)
        self.as_branch = as_branch
        self.passes = 0
        if as_buffer:
            del self.passes
            self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes = self.passes + 1
        if self.as_branch:
            return self.head(x) + self.layer(x) if self.passes > 100 else self.head(x)
        return self.head(x) + (self.passes > 100) * self.layer(x)


def branch_at_random(model, x):
    return model.head(model.layer(x).relu() + x if torch.rand(()) < 1e-3 else x)


def masked_at_random(model, x):
    return model.head(x + model.layer(x) * (torch.rand(()) < 1e-3))


@pytest.mark.parametrize("as_buffer", [True, False])
@pytest.mark.parametrize("as_branch", [True, False])
def test_a_layer_that_joins_in_later(as_buffer, as_branch):
    said = diagnose(Counting(as_buffer, as_branch), batch=points()).verdict
    if as_branch:
        assert "not used in these forward passes, and perhaps in others: layer" in said
    assert not any("make no difference" in sentence for sentence in said), said


def test_a_layer_that_is_skipped_at_random():
    said = diagnose(Model(branch_at_random), batch=points()).verdict
    assert "not used in these forward passes, and perhaps in others: layer" in said
    said = diagnose(Model(masked_at_random), batch=points()).verdict
    assert "no gradient in 8 updates: layer: a product multiplies it by zero" in said
    assert not any("make no difference" in sentence for sentence in said), said


# ------------------------------------------------------------------------------------------------
# Causes that are easily taken for others
# ------------------------------------------------------------------------------------------------
def of_the_same_type(model, x):
    return model.head(x.to(model.layer.weight)) + model.layer.bias.new_zeros(CLASSES)


def test_a_parameter_that_only_lends_its_type_is_not_used():
    said = diagnose(Model(of_the_same_type), batch=points()).verdict
    assert said[0] == "learns: its only layer has a gradient by update 1"
    assert "not used in the forward pass: layer" in said


def test_a_shift_of_all_logits_cancels():
    model = Model(lambda m, x: m.layer(x).expand(-1, CLASSES), nn.Linear(WIDTH, 1), nn.Identity())
    said = diagnose(model, batch=points()).verdict
    assert "no gradient in 8 updates: layer: the terms of its gradient cancel" in said


def test_a_layer_does_not_wait_for_what_waits_for_it():
    """The outputs of a zero head are compared with one another."""
    model = chain()
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)

    def contrast(out, target):
        out = F.normalize(out)
        return F.cross_entropy(out @ out.T, torch.arange(len(out)))

    said = diagnose(model, batch=points(), loss=contrast).verdict
    assert said[0].startswith("does not learn: 2 of 2 layers") and "waits for" not in " ".join(said)


def test_weights_that_are_very_large_are_not_equal():
    x, _ = points()
    said = diagnose(chain(), batch=(x, (x @ x[:CLASSES].T).argmax(1)), lr=1e3, optimizer="sgd")
    assert not any("neurons of a layer are equal" in sentence for sentence in said.verdict)


def test_a_part_of_zeros_is_used_where_no_gradient_comes():
    """ReLU passes nothing on at zero, as where the inputs of one of two layers are zero."""
    x, y = points()
    model = Model(lambda m, x: m.head(torch.cat([m.layer(0 * x), x], 1).relu()))
    model.layer = nn.Linear(WIDTH, WIDTH, bias=False)
    model.head = nn.Linear(2 * WIDTH, CLASSES)
    said = diagnose(model, batch=(x, y)).verdict
    assert "no gradient comes to its part of the result of cat" in said[1]


def overwritten(model, x):
    features = model.layer(x) * 1
    features[:] = 0
    return model.head(features)


UNUSUAL = {
    "fill_ overwrites it": lambda: Model(overwritten),
    "fake quantization clips every number": lambda: Model(
        lambda m, x: m.head(
            F.linear(x, torch.fake_quantize_per_tensor_affine(m.layer.weight, 1e-9, 0, -8, 7))
        )
    ),
    "layer: it is empty": lambda: Model(
        lambda m, x: m.head(torch.cat([x, m.layer(x)], 1)), nn.Linear(WIDTH, 0)
    ),
    "layer: nothing in this batch reaches it": lambda: Model(
        lambda m, x: m.head(x.index_add(0, torch.arange(0), m.layer(x[x[:, 0] > 99])))
    ),
    "TorchScript": lambda: Model(
        lambda m, x: m.head(m.layer(x)), torch.jit.script(filled_bias(-100.0, nn.ReLU)[:2])
    ),
}


@pytest.mark.parametrize("cause", UNUSUAL)
def test_unusual_causes(cause):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        said = diagnose(UNUSUAL[cause](), batch=points()).verdict
    assert any(cause in sentence for sentence in said), said


# ------------------------------------------------------------------------------------------------
# Losses that tell little
# ------------------------------------------------------------------------------------------------
BEYOND = {
    "all targets are above 1, and sigmoid gives 1 or less": (nn.Sigmoid(), 5.0),
    "all targets are above 1, and tanh gives 1 or less": (nn.Tanh(), 5.0),
    "all targets are below 0, and relu gives 0 or more": (nn.ReLU(), -5.0),
}


@pytest.mark.parametrize("loss", [None, nn.MSELoss(), F.l1_loss])
@pytest.mark.parametrize("reason", BEYOND)
def test_targets_that_no_output_reaches(reason, loss):
    activation, offset = BEYOND[reason]
    x, _ = points()
    model = nn.Sequential(*chain()[:2], nn.Linear(WIDTH, 1), activation)
    said = diagnose(model, batch=(x, x[:, :1] + offset), loss=loss).verdict
    assert said[0] == "does not learn: the best output is the same for every input"
    assert reason in said


def test_targets_at_the_end_of_the_range_are_within_reach():
    x, _ = points()
    model = nn.Sequential(*chain()[:2], nn.Linear(WIDTH, 1), nn.Sigmoid())
    said = diagnose(model, batch=(x, torch.ones(len(x), 1)), loss=F.mse_loss).verdict
    assert said[0].startswith("learns: "), said


def test_the_value_of_a_policy_gradient_stays_the_same():
    x, y = points()
    gain = torch.randn(len(x), generator=torch.Generator().manual_seed(2))

    def policy_gradient(out, action):
        chosen = out.log_softmax(1).gather(1, action[:, None])[:, 0]
        return -((chosen - chosen.detach()).exp() * gain).mean()

    said = diagnose(chain(), batch=(x, y), loss=policy_gradient).verdict
    assert said[0].startswith("does not show in the loss whether it learns: the loss goes from ")
    assert "the gradient is not that of the loss: a part of it is detached or rounded" in said


class WithLoss(nn.Module):
    """A model that returns its loss alone, which is at its minimum."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, 1)

    def forward(self, x, y):
        return (self.layer(x).sigmoid() * 0).square().mean() + y.float().mean()


def test_a_loss_that_a_model_returns_is_the_loss():
    said = diagnose(WithLoss(), batch=points()).verdict
    assert said[0] == "does not learn: 1 of 1 layers stay without a gradient in 8 updates"


def test_a_lazy_norm_is_to_be_called_first():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that lazy modules may change
        model = nn.Sequential(nn.LazyLinear(CLASSES), nn.LazyBatchNorm1d())
    with pytest.raises(Refused, match="diagnose works on a copy: call it on a batch first"):
        diagnose(model, batch=points())
