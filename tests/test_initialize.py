"""Situations of real users, from public reports: what `initialize` must say and do in each."""

import copy
import tempfile
import warnings

import pytest
import torch
import torch.nn as nn

from zeroinit import diagnose, initialize
from zeroinit.basics.errors import Refused


def generator():
    return torch.Generator().manual_seed(0)


def rules(table):
    return dict(zip(table.parameter, table.rule, strict=True))


class Bare(nn.Linear):
    """An adapter of bare parameters in a linear layer (SAPT 11, relora 18, litgpt 1229)."""

    def __init__(self, names=("lora_A", "lora_B"), sizes=(16, 8)):
        super().__init__(*sizes)
        self.requires_grad_(False)
        for name, shape in zip(names, [(2, sizes[0]), (sizes[1], 2)], strict=True):
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))


class OwnWeight(nn.Module):
    """The same in a module that is no linear layer."""

    def __init__(self, out=8):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, 16), requires_grad=False)
        self.lora_A = nn.Parameter(torch.zeros(4, 16))
        self.lora_B = nn.Parameter(torch.zeros(out, 4))


@pytest.mark.parametrize(
    "layer, down, up",
    [
        (Bare(), "lora_A", "lora_B"),
        (Bare(("first", "second")), "first", "second"),
        (OwnWeight(), "lora_A", "lora_B"),
        (OwnWeight(out=4), "lora_A", "lora_B"),  # of a rank that is not low
    ],
)
def test_bare_adapters_are_found(layer, down, up):
    table = initialize(nn.Sequential(layer), "lora", generator())
    treated = {n: rule for n, rule in rules(table).items() if rule != "left alone"}
    assert list(treated) == [f"0.{down}", f"0.{up}"]
    assert getattr(layer, down).any() and not getattr(layer, up).any()


def test_a_role_that_only_a_name_gives_is_marked():
    by_structure = initialize(nn.Sequential(Bare()), "lora")
    assert "by_name" not in by_structure
    by_name = initialize(nn.Sequential(OwnWeight(out=4)), "lora")
    assert dict(zip(by_name.parameter, by_name.by_name, strict=True))["0.lora_A"] == "lora_down"


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_the_old_norms_are_refused_with_the_line_that_converts_them(norm):
    """hifi-gan 145, pytorch 20192"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(getattr(nn.utils, norm)(nn.Conv1d(8, 16, 3)), nn.Flatten())
    with pytest.raises(Refused) as error:
        initialize(model, "kaiming_normal")
    line = f"torch.nn.utils.remove_{norm}(model.get_submodule('0'), 'weight')"
    back = f"torch.nn.utils.parametrizations.{norm}(model.get_submodule('0'), 'weight')"
    assert line in str(error.value) and back in str(error.value)
    exec(line, dict(torch=torch, model=model))
    initialize(model, "kaiming_normal", generator())
    before = model[0].weight.detach().clone()
    exec(back, dict(torch=torch, model=model))
    if norm == "weight_norm":
        torch.testing.assert_close(model[0].weight.detach(), before)


def test_a_model_without_parameters_is_called_that():
    """pytorch 72580"""

    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(8, 16), nn.Linear(16, 4)]

    with pytest.raises(Refused, match="no parameters at all; layers in a plain list"):
        initialize(Listed(), "zero")


@pytest.mark.parametrize(
    "scheme, arguments, std",
    [
        ("kaiming_normal", dict(mode="fan_out"), 2**0.5 / 24),
        ("kaiming_normal", dict(mode="fan_out", groups="per_output"), 2**0.5 / 3),
        ("kaiming_uniform", dict(mode="fan_out", groups="per_output"), 2**0.5 / 3),
        ("xavier_normal", dict(groups="per_output"), 1 / 3),
        ("orthogonal", dict(groups="per_output"), 1 / 3),
    ],
)
def test_groups_count_as_torch_counts_or_as_they_are(scheme, arguments, std):
    """pytorch 23854, pytorch-image-models 84"""
    model = nn.Sequential(nn.Conv2d(64, 64, 3, groups=64))
    initialize(model, scheme, generator(), **arguments)
    assert model[0].weight.std().item() == pytest.approx(std, rel=0.1)


def test_depthwise_layers_keep_the_scale_with_per_output():
    layers = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()]
    for _ in range(6):
        layers += [nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.ReLU()]
        layers += [nn.Conv2d(64, 64, 1), nn.ReLU()]
    model = nn.Sequential(*layers)
    x = torch.randn(16, 3, 12, 12, generator=generator())
    sizes = {}
    for groups in ("torch", "per_output"):
        initialize(model, "kaiming_normal", generator(), mode="fan_out", groups=groups)
        sizes[groups] = model(x).std().item()
    assert sizes["torch"] < 1e-4 < 0.05 < sizes["per_output"]


def test_the_scale_of_a_norm_is_no_layer_scale():
    """transformers 143, ChatTTS 732"""

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma, self.beta = nn.Parameter(torch.ones(16)), nn.Parameter(torch.zeros(16))

        def forward(self, x):
            return self.gamma * (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True) + self.beta

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(16))

        def forward(self, x):
            return self.gamma * x

    table = initialize(nn.Sequential(nn.Linear(8, 16), Norm(), Scale()), "layerscale")
    treated = [name for name, rule in rules(table).items() if rule != "left alone"]
    assert treated == ["2.gamma"]


@pytest.mark.parametrize("scheme", ["bias_normal", "fixup", "lsuv", "zero_head", "orthogonal"])
@pytest.mark.parametrize("strict", [True, False])
def test_lazy_layers(scheme, strict):
    """pytorch 125861"""
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    batch = torch.randn(4, 3, 8, 8) if scheme == "lsuv" else None
    try:
        table = initialize(model, scheme, batch=batch, strict=strict)
    except Refused as error:
        assert "run the model once on a batch first" in str(error)
    else:
        assert not strict and "3" in table.untreated
    model(torch.randn(4, 3, 8, 8))
    initialize(model, "bias_normal")


@pytest.mark.parametrize("scheme", ["zero", "default", "bias_normal", "orthogonal", "zero_head"])
def test_nothing_is_written_on_the_meta_device(scheme):
    """pytorch 104187, Modalities 357"""
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    with pytest.raises(Refused, match=r"layer \d \(Linear\): it is on the meta device"):
        initialize(model, scheme)
    assert len(initialize(model, scheme, strict=False).untreated) >= 1


@pytest.mark.parametrize("scheme", ["default", "kaiming_normal", "orthogonal", "bias_normal"])
def test_complex_weights_are_refused(scheme):
    """pytorch 46374"""
    model = nn.Sequential(nn.Linear(16, 64, dtype=torch.cfloat))
    before = model[0].weight.detach().clone()
    with pytest.raises(Refused, match=r"layer 0 \(Linear\): its weight is complex"):
        initialize(model, scheme)
    assert torch.equal(model[0].weight, before)


def test_default_is_torchs_own_for_attention():
    """pytorch 166378"""
    for sizes in ({}, dict(kdim=40, vdim=500)):
        torch.manual_seed(0)
        attention = nn.MultiheadAttention(64, 4, **sizes)
        own = {name: p.detach().clone() for name, p in attention.named_parameters()}
        initialize(attention, "default", generator())
        for name, p in attention.named_parameters():
            assert p.std().item() == pytest.approx(own[name].std().item(), rel=0.05), name
            if own[name].any():
                assert p.abs().max().item() == pytest.approx(
                    own[name].abs().max().item(), rel=0.05
                ), name
    fused = nn.Sequential()
    fused.add_module("qkv", nn.Linear(64, 192))
    own = fused.qkv.weight.detach().clone()
    initialize(fused, "default", generator(), only="query")
    assert torch.equal(fused.qkv.weight[64:], own[64:])
    assert fused.qkv.weight[:64].std().item() == pytest.approx(own.std().item(), rel=0.05)


def test_recurrent_layers_are_treated():
    """pytorch 750, 20102, allennlp 200"""
    for kind, gates in ((nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)):
        model = nn.Sequential(kind(16, 32, 2, bidirectional=True))
        own = {name: p.std().item() for name, p in model.named_parameters()}
        initialize(model, "default", generator())
        for name, p in model.named_parameters():
            assert p.std().item() == pytest.approx(own[name], rel=0.25), name

        initialize(model, "orthogonal", generator())
        for gate in model[0].weight_hh_l1_reverse.chunk(gates):
            torch.testing.assert_close(gate @ gate.T, torch.eye(32))
        assert not model[0].bias_ih_l0.any() and not model[0].bias_hh_l0.any()

        table = initialize(model, "bias_normal", generator(), std=2.0)
        assert not model[0].weight_ih_l0.any() and not model[0].bias_hh_l0.any()
        assert model[0].bias_ih_l0.std().item() == pytest.approx(2.0, rel=0.4)
        assert table.untreated == {}


def test_the_forget_gates_bias_is_an_argument():
    model = nn.Sequential(nn.LSTM(16, 32, 2), nn.LSTMCell(32, 8))
    initialize(model, "orthogonal", generator(), forget_bias=1.0)
    for layer, keys in ((model[0], ("bias_ih_l0", "bias_ih_l1")), (model[1], ("bias_ih",))):
        for key in keys:
            _, forget, _, _ = getattr(layer, key).chunk(4)
            assert forget.tolist() == [1.0] * len(forget)
            assert getattr(layer, key).sum().item() == len(forget)
    with pytest.raises(Refused, match="forget_bias needs an LSTM"):
        initialize(nn.GRU(2, 2), "zero", forget_bias=1.0)


class Language(nn.Module):
    """A head that is tied to the embedding (Modalities PR 456, fastai PR 2090)."""

    def __init__(self, by_data):
        super().__init__()
        self.wte, self.mix = nn.Embedding(50, 32), nn.Linear(32, 32)
        self.lm_head = nn.Linear(32, 50, bias=False)
        if by_data:
            self.lm_head.weight.data = self.wte.weight.data
        else:
            self.lm_head.weight = self.wte.weight


@pytest.mark.parametrize("by_data", [False, True])
def test_tied_tensors_are_marked_with_the_other_name(by_data):
    model = Language(by_data)
    table = initialize(model, "zero_head").set_index("parameter")
    assert table.tied["wte.weight"] == "lm_head.weight"
    assert (table.rule["wte.weight"], table.zero_share["wte.weight"]) == ("0", 1.0)
    assert "head" in table.role["wte.weight"]
    assert not model.wte.weight.any()


@pytest.fixture
def process_group():
    """One process that is a group of its own."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    with tempfile.TemporaryDirectory() as folder:
        file = f"file://{folder}/store"
        distributed.init_process_group("gloo", init_method=file, rank=0, world_size=1)
        try:
            yield
        finally:
            distributed.destroy_process_group()


def test_distributed_tensors_are_refused(process_group):
    """torchtitan 3106, llm-foundry PR 1820"""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (1,))
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
    sharded = distribute_tensor(model[0].weight.data, mesh, [Shard(0)])
    model[0].weight = nn.Parameter(sharded)
    with pytest.raises(Refused, match="its weight is a DTensor, of which each process"):
        initialize(model, "orthogonal")
    table = initialize(model, "zero", strict=False)
    assert list(table.untreated) == ["0"] and not model[1].weight.any()
    with pytest.raises(Refused, match="0.weight is sharded over processes"):
        diagnose(model, batch=torch.randn(4, 8))


def test_fully_sharded_models_are_refused(process_group):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    def model():
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    sharded = model()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)))
    cpu = torch.device("cpu")
    wrapped = [
        FullyShardedDataParallel(model(), use_orig_params=keeps_names, device_id=cpu)
        for keeps_names in (False, True)
    ]
    for sharded_model in (sharded, *wrapped):
        before = [p.detach().clone() for p in sharded_model.parameters()]
        with pytest.raises(Refused, match="of which each process holds a part"):
            initialize(sharded_model, "zero")
        with pytest.raises(Refused, match="is sharded"):
            diagnose(sharded_model, batch=torch.randn(4, 8))
        for p, old in zip(sharded_model.parameters(), before, strict=True):
            assert torch.equal(p, old)
    parallel = nn.parallel.DistributedDataParallel(model())
    assert not initialize(parallel, "zero")["max"].any()


def test_a_bias_is_given_where_it_is_asked_for():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Flatten())
    with pytest.raises(Refused, match="add_bias=True gives it one, and strict=False"):
        initialize(model, "bias_normal")
    assert model[0].bias is None
    table = initialize(model, "bias_normal", generator(), add_bias=True)
    assert rules(table)["0.bias"] == "N(0, 1²), new"
    assert model[0].bias.shape == (8,) and model[0].bias.requires_grad
    assert table.untreated == {}
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert model[0].bias.grad is not None


def test_a_table_says_how_many_layers_were_not_treated():
    model = nn.Sequential(*[nn.Conv2d(3, 3, 1, bias=False) for _ in range(5)], nn.Linear(3, 2))
    table = initialize(model, "bias_normal", strict=False)
    assert list(table.untreated) == ["0", "1", "2", "3", "4"]
    assert table.note.startswith(
        "5 of 6 layers were not treated and stayed as they were. The reason: "
    )
    assert table.note in repr(table)


@pytest.mark.parametrize(
    "dtype, arguments",
    [(torch.float16, dict(std=1e6)), (torch.float32, dict(std=1e300)), (torch.bfloat16, {})],
)
def test_a_dtype_that_cannot_hold_the_numbers_is_refused(dtype, arguments):
    model = nn.Sequential(nn.Linear(4, 4)).to(dtype)
    before = model[0].bias.detach().clone()
    if arguments:
        with pytest.raises(Refused, match=r"layer 0 \(Linear\): "):
            initialize(model, "bias_normal", **arguments)
        assert torch.equal(model[0].bias, before)
    else:
        initialize(model, "bias_normal")


class Noisy(nn.Module):
    """A model that draws random numbers, also in evaluation mode, as a VAE does."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x):
        mean = self.encoder(x)
        return self.decoder(mean + torch.randn_like(mean))


def test_a_batch_through_a_model_that_draws_depends_on_the_generator_alone():
    batch = torch.randn(16, 8, generator=generator())
    weights = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = Noisy()
        state = torch.get_rng_state()
        initialize(model, "lsuv", generator(), batch=batch)
        assert torch.equal(state, torch.get_rng_state())
        weights.append(model.decoder.weight.detach().clone())
    assert torch.equal(*weights)


class Factorization(nn.Module):
    """A recommender of embeddings alone."""

    def __init__(self):
        super().__init__()
        self.users, self.items = nn.Embedding(50, 8), nn.Embedding(70, 8)

    def forward(self, pairs):
        return (self.users(pairs[:, 0]) * self.items(pairs[:, 1])).sum(-1)


def test_a_model_of_embeddings_alone():
    model = Factorization()
    assert rules(initialize(model, "default")) == {
        "users.weight": "N(0, 1²)",
        "items.weight": "N(0, 1²)",
    }
    initialize(model, "truncated_normal", std=0.1)
    assert 0 < model.users.weight.abs().max() <= 0.2
    initialize(model, "zero", only="items")
    assert model.users.weight.any() and not model.items.weight.any()
    with pytest.raises(Refused, match="found no linear or convolution layer in Factorization"):
        initialize(model, "zero")
    with pytest.raises(Refused, match="found no linear or convolution layer in LayerNorm"):
        initialize(nn.LayerNorm(4), "bias_normal")
    assert list(initialize(nn.LayerNorm(4), "default").rule) == ["1", "0"]


class Tagger(nn.Module):
    """A recurrent model, whose first layer takes sequences."""

    def __init__(self, kind, **options):
        super().__init__()
        self.rnn, self.head = kind(8, 6, batch_first=True, **options), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("scheme", ["zero_hadamard", "idinit", "constnet"])
def test_branches_are_looked_for_in_a_recurrent_model(kind, scheme):
    table = initialize(Tagger(kind), scheme, strict=False)
    assert not table.rule.str.startswith("not found").any()
    assert list(table.untreated) == ["rnn"]


def test_no_bias_is_promised_to_a_part_of_a_layer():
    with pytest.raises(Refused, match="it has no bias") as error:
        initialize(nn.LSTM(8, 6, bias=False), "bias_normal")
    assert "add_bias" not in str(error.value)


@pytest.mark.parametrize("scheme", ["rezero", "skipinit", "fixup"])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_scalar_on_a_branch_is_replaced_by_the_next(scheme, alpha):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x):
            return x + self.down(self.up(x).relu())

    model = nn.Sequential(nn.Linear(8, 8), Block(), Block(), nn.Linear(8, 3))
    arguments = {} if scheme == "fixup" else dict(alpha=alpha)
    states = []
    for _ in range(3):
        initialize(model, scheme, generator(), **arguments)
        states.append({name: p.detach().clone() for name, p in model.named_parameters()})
    for state in states[1:]:
        assert list(state) == list(states[0])
        for name, p in state.items():
            assert torch.equal(p, states[0][name]), name


def test_a_scripted_model_is_to_be_initialized_before():
    model = nn.Sequential(nn.Linear(8, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(model)
        traced = torch.jit.trace(model, torch.randn(2, 8))
    for compiled in (scripted, traced):
        with pytest.raises(Refused, match="initialize the model before torch.jit.script"):
            initialize(compiled, "zero")


@pytest.mark.parametrize(
    "scheme, arguments, message",
    [
        ("bias_fan_in", dict(scale=-1), "scale must be 0 or more, not -1"),
        ("truncated_normal", dict(std=-1), "std must be 0 or more"),
    ],
)
def test_an_argument_out_of_range_is_named(scheme, arguments, message):
    with pytest.raises(Refused, match=f"^{message}"):
        initialize(nn.Linear(8, 4), scheme, **arguments)


def test_a_truncated_normal_without_width():
    model = nn.Linear(8, 4)
    assert list(initialize(model, "truncated_normal", std=0).rule) == ["0", "0"]
    assert not model.weight.any()


class Attention(nn.Module):
    """Four layers whose module is the whole model."""

    def __init__(self):
        super().__init__()
        self.num_heads = 4
        for name in ("q", "k", "v", "out"):
            self.add_module(name, nn.Linear(64, 64))


def test_mimetic_attention_that_is_the_whole_model():
    model = Attention()
    initialize(model, "mimetic", generator())
    query, key, value, output = [layer.weight.detach() for layer in model.children()]
    assert (query[:16].T @ key[:16]).diagonal().mean() > 0.2
    assert (output @ value).diagonal().mean() < -0.3

    model = nn.MultiheadAttention(64, 4)
    initialize(model, "mimetic", generator())
    value = model.in_proj_weight.detach()[128:]
    assert (model.out_proj.weight.detach() @ value).diagonal().mean() < -0.3


@pytest.mark.parametrize(
    "scheme", ["default", "kaiming_normal", "orthogonal", "zero_hadamard", "idinit", "mimetic"]
)
def test_the_default_device_makes_no_difference(scheme):
    # meta stands for an accelerator: nothing that is made there has values
    models = [nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2)]
    batch = torch.randn(2, 5, 8)
    initialize(models[0], scheme, generator(), batch=batch, strict=False)
    with torch.device("meta"):
        initialize(models[1], scheme, generator(), batch=batch, strict=False)
    if scheme in ("zero_hadamard", "idinit"):
        assert models[0].in_proj_weight.diagonal().eq(1).all()
    torch.testing.assert_close(*[model.in_proj_weight for model in models], rtol=0, atol=0)


def test_noise_on_another_default_device():
    model = nn.Linear(8, 4)
    initialize(model, "transient_noise", generator())
    x = torch.randn(2, 8)
    expected = copy.deepcopy(model)(x)
    with torch.device("meta"):
        output = model(x)
    assert torch.equal(output, expected) and output.any()


def test_names_with_brackets():
    model = nn.ModuleDict({f"layer[{i}]": nn.Linear(4, 4) for i in range(2)})
    model["heads[query]s"] = nn.MultiheadAttention(4, 2)
    table = initialize(model, "bias_normal", generator()).set_index("parameter")
    assert table.rule["layer[0].weight"] == "0" and "stem" in table.role["layer[0].weight"]
    assert table.rule["layer[1].bias"] == "N(0, 1²)"
    assert table.rule["heads[query]s.in_proj_bias[key]"] == "N(0, 1²)"
    assert not table.rule.isin(["left alone"]).any()
    for name, p in model.named_parameters():
        if "in_proj" not in name:
            assert table.zero_share[name] == (p == 0).double().mean()
    table = initialize(model, "default", only="layer[0]")
    assert list(table.parameter[table.rule != "left alone"]) == [
        "layer[0].weight",
        "layer[0].bias",
    ]


def test_a_quantized_model_is_called_that():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        except RuntimeError:
            pytest.skip("this torch has no quantized engine")
    with pytest.raises(Refused, match="layers that are quantized hold no parameters"):
        initialize(model, "zero")
