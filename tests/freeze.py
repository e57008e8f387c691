"""Freeze what a user gets from zeroinit as hashes: a refactoring must change none of them.

    python tests/freeze.py OUT.json [--quick]     hash everything and write it down
    python tests/freeze.py --names                only look for what IMPORTS names
    python tests/freeze.py --compare A.json B.json    print each name that differs

The code and the records that are hashed are those of the folder the script is started in, so that
one script serves an old checkout and a new one. $ZEROINIT_DATA may name a folder that holds MNIST;
without it the runs on MNIST are left out. The draws, runs and tables are the same on one machine
with one version of torch; on another machine they may differ in the last bit.

A name ends in what was hashed. `bits`, `table`, `history`, `probes`, `values` are numbers, and
`message` and `wording` are words, so that a changed sentence is told apart from a changed number.
"""

import argparse
import ast
import contextlib
import hashlib
import importlib
import inspect
import io
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path.cwd()))
# an editable installation may add modules of another checkout to this one's
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]

# ------------------------------------------------------------------------------------------------
# Where things live: first the new layout, then the old one. The first that is found is taken.
# To follow a renamed function, add a pair in front.
# ------------------------------------------------------------------------------------------------
IMPORTS = {
    "Refused": [("zeroinit.basics.errors", "Refused"), ("zeroinit.basics", "Refused")],
    "MODELS": [("zeroinit.models.networks", "MODELS"), ("zeroinit.models", "MODELS")],
    "build": [("zeroinit.models.networks", "build"), ("zeroinit.models", "build")],
    "schemes": [
        ("zeroinit.schemes.initialization", "schemes"),
        ("zeroinit.inits", "schemes"),
    ],
    "initialize": [("zeroinit", "initialize"), ("zeroinit.inits", "initialize")],
    "diagnose": [("zeroinit", "diagnose"), ("zeroinit.doctor", "diagnose")],
    "load": [("zeroinit.data.datasets", "load"), ("zeroinit.data", "load")],
    "ROWS": [("zeroinit.experiments.protocols", "ROWS"), ("zeroinit.protocols", "ROWS")],
    "fill_in": [("zeroinit.experiments.protocols", "fill_in"), ("zeroinit.protocols", "filled")],
    "resolve": [("zeroinit.experiments.resolve", "resolve"), ("zeroinit.requests", "resolve")],
    "request": [
        ("zeroinit.experiments.runner", "request"),
        ("zeroinit.experiments.resolve", "request"),
        ("zeroinit.experiments", "request"),
    ],
    "run": [("zeroinit.experiments.runner", "run"), ("zeroinit.experiments", "run")],
    "Stopped": [
        ("zeroinit.experiments.context", "Stopped"),
        ("zeroinit.experiments.runner", "Stopped"),
        ("zeroinit.experiments", "Stopped"),
    ],
    "config_hash": [
        ("zeroinit.experiments.config", "config_hash"),
        ("zeroinit.experiments.records", "config_hash"),
        ("zeroinit.results", "config_hash"),
    ],
    "results_path": [
        ("zeroinit.experiments.records", "results_path"),
        ("zeroinit.experiments.config", "results_path"),
        ("zeroinit.results", "results_path"),
    ],
    "run_name": [
        ("zeroinit.experiments.records", "run_name"),
        ("zeroinit.experiments.config", "run_name"),
        ("zeroinit.results", "run_name"),
    ],
    "records": [("zeroinit.experiments.records", "records"), ("zeroinit.results", "records")],
    "read": [
        ("zeroinit.experiments.frames", "read"),
        ("zeroinit.experiments.records", "read"),
        ("zeroinit.evidence.statistics", "read"),
        ("zeroinit.results", "read"),
    ],
    "summary": [
        ("zeroinit.experiments.frames", "summary"),
        ("zeroinit.evidence.statistics", "summary"),
        ("zeroinit.experiments.records", "summary"),
        ("zeroinit.results", "summary"),
    ],
    "SUITES": [("zeroinit.experiments.suites", "SUITES"), ("zeroinit.suites", "SUITES")],
    "plan": [
        ("zeroinit.sweep.driver", "plan_suite"),
        ("zeroinit.sweep.driver", "plan"),
        ("zeroinit.sweep", "plan"),
    ],
    "evidence_cells": [("zeroinit.evidence.cells", "evidence_cells")],
    "agreement": [
        ("zeroinit.evidence.replication", "agreement"),
        ("zeroinit.evidence.verdicts", "agreement"),
        ("zeroinit.verdicts", "agreement"),
    ],
    "report_table": [
        ("zeroinit.publish.report", "results_table"),
        ("zeroinit.report", "table"),
    ],
    "parser": [
        ("zeroinit.publish.cli", "make_parser"),
        ("zeroinit.publish.cli", "parser"),
        ("zeroinit.command", "parser"),
    ],
    "main": [("zeroinit.publish.cli", "main"), ("zeroinit.command", "main")],
    # what ends a run after its epoch: the Event `stop` of a RunContext that `run` is given, or, in
    # an old checkout, the module's own Event
    "RunContext": [("zeroinit.experiments.context", "RunContext")],
    "stop": [("zeroinit.experiments.runner", "stop"), ("zeroinit.experiments", "stop")],
}
OPTIONAL = {"RunContext", "stop"}

# columns of the tables that hold sentences; all others are values
SENTENCES = {"statement", "source", "so_far", "published_words", "sentence", "check", "than"}

# ------------------------------------------------------------------------------------------------
# What is drawn. Wide networks are drawn narrow, so that all schemes fit into minutes.
# ------------------------------------------------------------------------------------------------
GREY, COLOUR = (1, 28, 28), (3, 32, 32)
DRAWN = {
    "logistic": (GREY, {}),
    "fnn": (GREY, {}),
    "cnn": (GREY, {}),
    "residual_cnn": (COLOUR, {}),
    "resnet50": (COLOUR, dict(width=8)),
    "resnet14": (COLOUR, {}),
    "bottleneck_resnet": (COLOUR, dict(width=8)),
    "vit": (GREY, dict(width=80, depth=3, heads=4, head_width=16)),
    "mixer": (GREY, dict(width=64, depth=3)),
}
QUICK_DRAWN = ("fnn", "cnn", "vit")

# as published, or somebody else's: (model, shape), and the schemes that are drawn on each
FULL_SIZE = [
    ("fnn", COLOUR),
    ("cnn", COLOUR),
    ("resnet50", COLOUR),
    ("bottleneck_resnet", COLOUR),
    ("vit", COLOUR),
    ("mixer", COLOUR),
    ("torchvision:resnet18", COLOUR),
    ("torchvision:resnet18", GREY),
    ("torchvision:convnext_tiny", COLOUR),
]
FULL_SIZE_SCHEMES = ("default", "zero", "bias_normal")

# schemes with arguments, and requests that are refused: (model, scheme, arguments)
ARGUED = [
    ("fnn", "bias_normal", dict(std=100.0)),
    ("fnn", "bias_uniform", dict(head_bias="log_prior")),
    ("fnn", "zero", dict(only="head")),
    ("fnn", "zero", dict(skip="head")),
    ("fnn", "zero", dict(only=["head", "hidden"])),
    ("fnn", "bias_norml", {}),
    ("fnn", "bias_normal", dict(spread=1)),
    ("fnn", "zero", dict(only="nowhere")),
    ("fnn", "lsuv", {}),
    ("cnn", "default", dict(head_bias="prior")),
    ("cnn", "zero", dict(only="bias")),
    ("vit", "zero", dict(only="attention")),
    ("vit", "zero_head", dict(head_bias="log_prior")),
    ("mixer", "transient_noise", dict(zero_norm=True)),
    ("resnet14", "transient_noise", dict(zero_norm=True)),
]
DIAGNOSED = [
    ("fnn", "default"),
    ("fnn", "zero"),
    ("fnn", "bias_normal"),
    ("cnn", "bias_normal"),
    ("residual_cnn", "zero"),
    ("resnet14", "zero_head"),
    ("vit", "zero_ffn_in"),
]

# ------------------------------------------------------------------------------------------------
# What is run: name -> (settings of the experiment, options of `run`).
# ------------------------------------------------------------------------------------------------
DIGITS = dict(model="fnn", dataset="digits", epochs=2)
MNIST = dict(dataset="mnist", epochs=1, train_size=96, eval_size=40, batch_size=24)
SMALLER = dict(train_size=32, eval_size=10, batch_size=16)
MADE_UP = dict(dataset="COLOUR.npz", epochs=2, batch_size=24)
RUNS = {
    "digits-bias_normal-plain": (dict(DIGITS, init="bias_normal"), dict(speed="plain")),
    "digits-bias_normal-auto": (dict(DIGITS, init="bias_normal"), dict(speed="auto")),
    "digits-zero-plain": (dict(DIGITS, init="zero"), dict(speed="plain")),
    "digits-zero-auto": (dict(DIGITS, init="zero"), dict(speed="auto")),
    "digits-default-plain": (dict(DIGITS, init="default"), dict(speed="plain")),
    "digits-default-auto": (dict(DIGITS, init="default"), dict(speed="auto")),
    "digits-together": (dict(DIGITS, init="bias_normal"), dict(seeds=4, together=2)),
    "digits-std100": (dict(DIGITS, init="bias_normal", init_args=dict(std=100.0)), {}),
    "digits-lsuv": (dict(DIGITS, init="lsuv"), {}),
    "digits-sgd": (dict(DIGITS, optimizer="sgd", lr=0.1, lr_step=1, lr_gamma=0.5), {}),
    "digits-rmsprop": (dict(DIGITS, optimizer="rmsprop"), {}),
    "digits-float64": (dict(DIGITS, precision="float64"), {}),
    "digits-published": (dict(DIGITS, protocol="published", init="default"), dict(seeds=2)),
    "digits-diverges": (dict(DIGITS, init="default", optimizer="sgd", lr=1e30), {}),
    "digits-logistic": (dict(DIGITS, model="logistic", init="default"), {}),
    "digits-cnn": (dict(DIGITS, model="cnn", train_size=300), {}),
    "mnist-cnn": (dict(MNIST, model="cnn"), {}),
    "mnist-cnn-published": (dict(MNIST, model="cnn", protocol="published"), {}),
    "mnist-residual_cnn": (dict(MNIST, model="residual_cnn", init="default"), dict(together=1)),
    "mnist-residual_cnn-together": (
        dict(MNIST, model="residual_cnn", init="default"),
        dict(seeds=2, together=2),
    ),
    "mnist-residual_cnn-zero": (dict(MNIST, model="residual_cnn", init="zero"), {}),
    "mnist-resnet14": (dict(MNIST, model="resnet14", init="default", both_modes=True), {}),
    "mnist-vit": (dict(MNIST | SMALLER, model="vit", init="zero_ffn_in"), {}),
    "mnist-mixer": (dict(MNIST | SMALLER, model="mixer", init="transient_noise"), {}),
    "digits-bf16": (dict(DIGITS, precision="bf16", train_size=300), {}),
    "colour-fnn": (dict(MADE_UP, model="fnn"), {}),
    "colour-cnn-crop": (dict(MADE_UP, model="cnn", train_size=72, augment="crop_flip+mixup"), {}),
    "colour-residual_cnn-published": (
        dict(MADE_UP, model="residual_cnn", protocol="published", init="default"),
        {},
    ),
    "colour-resnet14-standard": (
        dict(MADE_UP, model="resnet14", scale="standard", augment="batch_crop_flip"),
        {},
    ),
    "colour-resnet18": (
        dict(MADE_UP, model="torchvision:resnet18", init="zero_head", train_size=48, epochs=1),
        {},
    ),
    "colour-tiny-augmented": (
        dict(MADE_UP, model="fnn", augment="resized_crop+flip+jitter+grayscale+mixup"),
        {},
    ),
}
QUICK_RUNS = ("digits-bias_normal-auto", "digits-together")
RESUMED = {
    "resumed": (dict(DIGITS, init="bias_normal", epochs=3), {}),
    "resumed-together": (dict(DIGITS, init="bias_normal", epochs=3), dict(seeds=2, together=2)),
}

# what a notebook may ask for, sound or not
REQUESTS = [
    {},
    dict(model="cnn", init="zero", protocol="published", seeds=3),
    dict(dataset="digits", epochs="4", lr="1e-2", reshuffle="false", init_args='{"std": 100}'),
    dict(model="vit", init="bias_normal", init_args=dict(strict=False), dataset="cifar10"),
    dict(model="torchvision:resnet18", dataset="cifar10"),
    dict(model="fn"),
    dict(modle="fnn"),
    dict(init="bias_norml"),
    dict(init="bias_normal", init_args=dict(sdt=1)),
    dict(dataset="mnits"),
    dict(dataset="missing.npz"),
    dict(epochs=0),
    dict(epochs="many"),
    dict(optimizer="adamw"),
    dict(augment="flop"),
    dict(protocol="original"),
    dict(precision="float8"),
    dict(scale="log"),
    dict(split="half"),
    dict(metric="best"),
    dict(seeds=0),
    dict(model="vit", init="bias_normal", dataset="mnist"),
    dict(model="vit", dataset="digits", init="rezero"),
    dict(model="torchvision:resnet18", protocol="published"),
]


class Missing(LookupError):
    """Something that IMPORTS names is nowhere to be found."""


def found_at(module, attribute):
    """What a module calls by a name; None if there is no such module or name."""
    try:
        home = importlib.import_module(module)
    except ImportError as error:
        absent = error.name or ""
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{absent}."):
            return None
        raise Missing(f"{module} is there but cannot be imported ({error})") from error
    thing = getattr(home, attribute, None)
    return None if inspect.ismodule(thing) else thing


def from_elsewhere():
    """The modules of zeroinit that were loaded from another folder than this one."""
    modules = [m for name, m in sys.modules.items() if name.partition(".")[0] == "zeroinit"]
    files = [m.__file__ for m in modules if getattr(m, "__file__", None)]
    return [f for f in files if not Path(f).resolve().is_relative_to(Path.cwd().resolve())]


def use(name):
    """The function, class or table that IMPORTS calls by this name."""
    for module, attribute in IMPORTS[name]:
        thing = found_at(module, attribute)
        if thing is not None:
            return thing
    tried = ", ".join(f"{module}.{attribute}" for module, attribute in IMPORTS[name])
    raise Missing(f"{name!r} was not found (tried {tried}); edit IMPORTS in tests/freeze.py")


def missing_names():
    """A sentence for every entry of IMPORTS that is not found."""
    sentences = {}
    for name in IMPORTS:
        try:
            use(name)
        except Missing as error:
            sentences[name] = str(error)
    return sentences


def digest(value):
    """16 hexadecimal digits that stand for bytes, a text, or anything that JSON can hold."""
    if not isinstance(value, (bytes, str)):
        value = json.dumps(value, sort_keys=True, default=repr)
    if isinstance(value, str):
        value = value.encode()
    return hashlib.sha256(value).hexdigest()[:16]


def without_paths(text):
    """A text in which the folder of this checkout and temporary folders have no names."""
    text = str(text).replace(str(Path.cwd()), "HERE")
    return re.sub(re.escape(tempfile.gettempdir()) + r"/[\w.-]+", "TEMP", text)


def generator(seed=0):
    """A fresh random stream."""
    import torch

    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------
# 1. Draws
# ------------------------------------------------------------------------------------------------
def bits(model):
    """A hash of all names, types, shapes and bytes of a model's tensors."""
    import torch

    whole = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()[:16]


def draw(name, model, scheme, batch=None, **arguments):
    """Hashes of what a scheme makes of a copy of a model: tensors, table, words or refusal."""
    import copy

    model = copy.deepcopy(model)
    kind, numbers = "applied", ""
    try:
        table = use("initialize")(model, scheme, generator=generator(), batch=batch, **arguments)
        numeric = table.select_dtypes("number")
        words = table[[c for c in table.columns if c not in numeric.columns]]
        numbers, message = numeric.to_csv(index=False), words.to_csv(index=False)
    except Exception as error:
        kind, message = type(error).__name__, str(error)
    return {
        f"{name}/type": digest(kind),
        f"{name}/bits": bits(model),
        f"{name}/table": digest(numbers),
        f"{name}/message": digest(without_paths(message)),
    }


def built(model, shape, **sizes):
    """A model, the same every time."""
    import torch

    torch.manual_seed(0)
    return use("build")(model, image_shape=shape, classes=10, **sizes)


def images(shape, count=8):
    """A batch of made-up images."""
    import torch

    return torch.rand(count, *shape, generator=generator(1))


def draws(model):
    """Every scheme on one model, with `strict` and without."""
    shape, sizes = DRAWN[model]
    start = built(model, shape, **sizes)
    hashes = {f"draws/{model}/built/bits": bits(start)}
    for scheme in use("schemes")():
        batch = images(shape) if scheme == "lsuv" else None
        strict = draw(f"draws/{model}/{scheme}", start, scheme, batch, strict=True)
        lenient = draw(f"draws/{model}/{scheme}/lenient", start, scheme, batch, strict=False)
        hashes |= strict | lenient
    return hashes


def full_size_draws(model, shape):
    """The plainest schemes on a model of its published size, or on one of torchvision's."""
    start = built(model, shape)
    place = f"full_size/{model}-{shape[0]}x{shape[1]}x{shape[2]}"
    hashes = {f"{place}/built/bits": bits(start)}
    for scheme in FULL_SIZE_SCHEMES:
        hashes |= draw(f"{place}/{scheme}", start, scheme, strict=False)
    return hashes


def argued_draws():
    """Schemes with arguments, and the sentences of those that make no sense."""
    hashes = {}
    for number, (model, scheme, arguments) in enumerate(ARGUED):
        shape, sizes = DRAWN[model]
        place = f"argued/{number:02}-{model}-{scheme}"
        hashes |= draw(place, built(model, shape, **sizes), scheme, **arguments)
    return hashes


def public():
    """What `import zeroinit` promises, after everything else was imported."""
    import zeroinit

    hashes = {"public/schemes/wording": digest(zeroinit.schemes())}
    hashes["public/schemes/values"] = digest(list(zeroinit.schemes()))
    for name in ("initialize", "schemes", "diagnose"):
        signature = inspect.signature(getattr(zeroinit, name))
        defaults = {p.name: (str(p.kind), repr(p.default)) for p in signature.parameters.values()}
        hashes[f"public/{name}/values"] = digest(defaults)
    return hashes


def diagnoses():
    """What `diagnose` says of a few starts."""
    hashes = {}
    for model, scheme in DIAGNOSED:
        shape, sizes = DRAWN[model]
        told = use("diagnose")(built(model, shape, **sizes), scheme)
        hashes[f"diagnose/{model}/{scheme}/wording"] = digest(without_paths(told))
    return hashes


# ------------------------------------------------------------------------------------------------
# 2. Runs
# ------------------------------------------------------------------------------------------------
def data_folder(folder):
    """A folder of data sets with MNIST in it, for caches of its own; None without MNIST."""
    source = os.environ.get("ZEROINIT_DATA")
    if not source or not (Path(source) / "MNIST").exists():
        return None
    data = Path(folder) / "data"
    data.mkdir()
    (data / "MNIST").symlink_to(Path(source).resolve() / "MNIST")
    return str(data)


def made_up_images(folder):
    """An .npz of coloured images, the same every time."""
    import numpy as np

    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 240), ("test", 60)):
        arrays[f"x_{split}"] = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 10
    path = Path(folder) / "colour.npz"
    np.savez(path, **arrays)
    return str(path)


def settled(settings, folder):
    """The settings of a run with the real path of the made-up images."""
    if settings["dataset"] != "COLOUR.npz":
        return settings
    return dict(settings, dataset=made_up_images(folder))


def without_seconds(row):
    """An epoch of a history without what depends on the machine's speed."""
    return {name: value for name, value in row.items() if name != "seconds"}


def run_hashes(name, records, folder):
    """Hashes of each record's settings, history and probes, and of the files that were made."""
    hashes = {}
    for record in records:
        place = f"runs/{name}/seed{record['seed']}"
        history = [without_seconds(row) for row in record["history"]]
        hashes[f"{place}/config"] = digest(record["config"])
        hashes[f"{place}/history"] = digest(history)
        hashes[f"{place}/probes"] = digest(record["probes"])
        hashes[f"{place}/status"] = digest(record["status"])
        hashes[f"{place}/keys"] = digest([list(record), sorted(record["env"])])
    files = (p for p in Path(folder).rglob("*") if p.is_file() and "data" not in p.parts)
    hashes[f"runs/{name}/files"] = digest(sorted(str(p.relative_to(folder)) for p in files))
    return hashes


def short_run(name):
    """One entry of RUNS, in a folder of its own."""
    settings, options = RUNS[name]
    with tempfile.TemporaryDirectory() as folder:
        data = data_folder(folder) if settings["dataset"] == "mnist" else None
        if settings["dataset"] == "mnist" and data is None:
            print(f"freeze: run {name} is left out: $ZEROINIT_DATA names no folder with MNIST")
            return {}
        told = dict(options, results_root=f"{folder}/results", quiet=True, device="cpu")
        experiment = use("resolve")(**settled(settings, folder))
        records = use("run")(experiment, data_root=data, **told)
        return run_hashes(name, records, folder)


def interrupted(experiment, **options):
    """Run, and stop after the first epoch; False, with a line, where nothing can stop a run."""
    run, missing = use("run"), missing_names()
    if "RunContext" not in missing:
        context = use("RunContext")()
        event = context.stop
        options["context"] = context
    elif "stop" not in missing:
        event = use("stop")
    else:
        print("freeze: the resumed run is left out: there is nothing that ends a run")
        return False
    event.set()
    try:
        run(experiment, **options)
        raise RuntimeError("a run that was asked to stop did not")
    except use("Stopped"):
        return True
    finally:
        event.clear()


def resumed_run(name):
    """A run that is stopped after its first epoch and goes on from its checkpoint."""
    settings, options = RESUMED[name]
    with tempfile.TemporaryDirectory() as folder:
        experiment = use("resolve")(**settings)
        told = dict(options, results_root=f"{folder}/results", quiet=True, device="cpu")
        if not interrupted(experiment, **told):
            return {}
        left = sorted(p.suffix for p in Path(folder).rglob("seed*.*"))
        hashes = {f"runs/{name}/left_behind": digest(left)}
        hashes |= run_hashes(name, use("run")(experiment, **told), folder)
        logs = sorted(Path(folder).rglob("seed*.log"))
        lines = "".join(log.read_text() for log in logs).splitlines()
        events = [line.split()[1] for line in lines]
        hashes[f"runs/{name}/events"] = digest(events)
        return hashes


def protocol_rows():
    """The settings that each row of the protocols fills in."""
    hashes = {}
    for work, rows in use("ROWS").items():
        for model, dataset in rows:
            for protocol in ("clean", "published"):
                for init in ("default", "zero"):
                    settings = dict(model=model, dataset=dataset, protocol=protocol, init=init)
                    name = f"protocols/{work}/{model}/{dataset}/{protocol}/{init}/values"
                    hashes[name] = digest(asdict(use("fill_in")(**settings)))
    return hashes


def requests():
    """What a notebook's parameters become, or the sentence that refuses them."""
    hashes = {}
    for number, names in enumerate(REQUESTS):
        said = io.StringIO()
        kind, values, message = "accepted", {}, ""
        try:
            with contextlib.redirect_stdout(said):
                asked = use("request")(dict(names))
            values = [asdict(asked.experiment), asked.options]
        except use("Refused") as error:
            kind, message = type(error).__name__, str(error)
        hashes[f"requests/{number:02}/type"] = digest(kind)
        hashes[f"requests/{number:02}/values"] = digest(values)
        hashes[f"requests/{number:02}/message"] = digest(without_paths(message + said.getvalue()))
    return hashes


# ------------------------------------------------------------------------------------------------
# 3. Tables
# ------------------------------------------------------------------------------------------------
def rows_of(name, frame, labels=(), sentences=SENTENCES):
    """A hash of each row's values and one of its sentences, and one of the names of the columns."""
    told = [c for c in frame.columns if c in sentences]
    numbers = [c for c in frame.columns if c not in sentences]
    hashes = {f"{name}/columns": digest(list(frame.columns))}
    for place in range(len(frame)):
        row = frame.iloc[[place]]
        label = "-".join(str(row[c].iloc[0]) for c in labels if c in row)
        where = f"{name}/{place:03}-{label}".rstrip("-")
        hashes[f"{where}/values"] = digest(row[numbers].to_csv(index=False, header=False))
        if told:
            hashes[f"{where}/wording"] = digest(row[told].to_csv(index=False, header=False))
    return hashes


def listed():
    """`zeroinit list`: the suites with their runs and claims, and the words around them."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        use("main")(["list"])
    hashes = {"list/wording": digest(out.getvalue())}
    for line in out.getvalue().partition("\n\n")[0].splitlines():
        values = re.split(r"\s+", line.partition("  ")[0]) + re.findall(r"\b[SJ]\d\b|\b\d+\b", line)
        hashes[f"list/{values[0]}/values"] = digest(values)
    return hashes


def plans():
    """`plan` of every suite, without what depends on this machine's speed."""
    hashes = {}
    for suite in use("SUITES"):
        rows = use("plan")(suite)
        for row in rows:
            row.pop("minutes"), row.pop("gib"), row.pop("gpu_hours", None)
        for number, row in enumerate(rows):
            hashes[f"plan/{suite}/{number:02}/values"] = digest(row)
    return hashes


def summaries():
    """The report's numbers, from the committed records."""
    frame = use("summary")(use("read")("results"))
    hashes = rows_of("summary", frame, ("dataset", "model", "scheme", "hash"))
    hashes["report/table/wording"] = digest(without_paths(use("report_table")("results")))
    return hashes


def evidence():
    """Cells and agreement, from the committed records."""
    found = use("records")("results")
    hashes = rows_of("cells", use("evidence_cells")(found), ("claim", "setting", "protocol"))
    agreement = use("agreement")(found)
    hashes |= rows_of("agreement", agreement, ("figure", "dataset", "model"))
    return hashes


# ------------------------------------------------------------------------------------------------
# 4. Parameters of the notebook and of the command
# ------------------------------------------------------------------------------------------------
def notebook_parameters():
    """Names, types, defaults and comments of the parameters of run_experiment.ipynb."""
    path = next(p for p in Path.cwd().rglob("run_experiment.ipynb") if "nbs" in p.parts)
    cells = json.loads(path.read_text())["cells"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    source = "".join(tagged[0]["source"])
    hashes = {"notebook/wording": digest(re.findall(r"#.*", source))}
    order = []
    for line in ast.parse(source).body:
        order.append(line.target.id)
        told = [line.target.id, ast.unparse(line.annotation), ast.literal_eval(line.value)]
        hashes[f"notebook/{line.target.id}/values"] = digest(told)
    hashes["notebook/order/values"] = digest(order)
    return hashes


def option_hashes(name, action):
    """One argument of the command: how it is written, what it takes, and its help."""
    kind = getattr(action.type, "__name__", action.type)
    told = [action.option_strings, action.dest, action.default, kind, action.nargs]
    told += [action.choices and list(action.choices), action.required, action.metavar]
    place = f"cli/{name}/{'|'.join(action.option_strings) or action.dest}"
    return {f"{place}/values": digest(told), f"{place}/wording": digest(action.help or "")}


def command_parameters():
    """All arguments of all subcommands of `zeroinit`."""
    hashes = {}
    parser = use("parser")()
    subcommands = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    hashes["cli/values"] = digest([parser.prog, list(subcommands[0].choices)])
    for name, command in subcommands[0].choices.items():
        words = [command.description, command.epilog, command.format_usage()]
        hashes[f"cli/{name}/wording"] = digest(words)
        for action in command._actions:
            hashes |= option_hashes(name, action)
    return hashes


# ------------------------------------------------------------------------------------------------
# 5 and 6. Experiments of the suites
# ------------------------------------------------------------------------------------------------
def suite_experiments():
    """Hash, path, name and settings of every experiment of every suite, by its first seed."""
    hashes = {}
    for suite, make in use("SUITES").items():
        for number, (experiment, seeds) in enumerate(make()):
            seed = next(iter(seeds))
            place = f"suites/{suite}/{number:02}"
            path = use("results_path")("results", experiment, seed)
            path = Path(os.path.relpath(path, Path.cwd())).as_posix()
            hashes[f"{place}/config_hash"] = digest(use("config_hash")(asdict(experiment)))
            hashes[f"{place}/hash"] = digest(experiment.hash)
            hashes[f"{place}/config"] = digest(asdict(experiment))
            hashes[f"{place}/seeds"] = digest(list(seeds))
            hashes[f"{place}/path"] = digest(path)
            hashes[f"{place}/run_name"] = digest(use("run_name")(experiment, seed))
    return hashes


# ------------------------------------------------------------------------------------------------
# All of it
# ------------------------------------------------------------------------------------------------
def tasks(quick):
    """What there is to do, as (function, its arguments); what takes longest comes first."""
    always = [(suite_experiments,), (notebook_parameters,), (command_parameters,), (public,)]
    if quick:
        return [(draws, m) for m in QUICK_DRAWN] + [(short_run, r) for r in QUICK_RUNS] + always
    found = [(evidence,)]
    found += [(draws, model) for model in reversed(DRAWN)]
    found += [(full_size_draws, model, shape) for model, shape in FULL_SIZE]
    found += [(short_run, name) for name in RUNS]
    found += [(resumed_run, name) for name in RESUMED]
    found += [(summaries,), (plans,), (listed,), (diagnoses,), (argued_draws,)]
    return found + [(protocol_rows,), (requests,), *always]


def done(function, *arguments):
    """One task, on one thread: its hashes, its seconds, and what went wrong."""
    import torch

    torch.set_num_threads(1)
    begun = time.monotonic()
    hashes, trouble = {}, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hashes = function(*arguments)
        if from_elsewhere():
            raise RuntimeError(f"this is the code of another checkout: {from_elsewhere()[:3]}")
    except Missing as error:
        trouble = str(error)
    except Exception:
        trouble = traceback.format_exc(limit=-4)
    return hashes, time.monotonic() - begun, trouble


def freeze(path, quick):
    """Do all tasks on two processes and write the hashes; the number of tasks that failed."""
    import zeroinit

    print(f"freeze: hashing {Path(zeroinit.__file__).parent}")
    for name, sentence in missing_names().items():
        if name not in OPTIONAL:
            print(f"freeze: {sentence}")
    hashes, failed, begun = {}, 0, time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        waiting = {pool.submit(done, *task): task for task in tasks(quick)}
        for future in as_completed(waiting):
            function, *arguments = waiting[future]
            name = " ".join([function.__name__, *map(str, arguments)])
            got, seconds, trouble = future.result()
            print(f"{seconds:6.1f} s {len(got):5} hashes  {name}", flush=True)
            if trouble:
                failed += 1
                print(f"freeze: {name} FAILED, its names will be missing: {trouble}", flush=True)
            hashes |= got
    Path(path).write_text(json.dumps(hashes, indent=0, sort_keys=True) + "\n")
    print(
        f"{len(hashes)} hashes in {path}, {time.monotonic() - begun:.0f} s, {failed} tasks failed"
    )
    return failed


def compare(one, other):
    """Print each name that differs or is missing in one of two files; how many there are."""
    a, b = json.loads(Path(one).read_text()), json.loads(Path(other).read_text())
    count = 0
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) == b.get(name):
            continue
        count += 1
        what = "differs"
        if name not in a:
            what = f"is missing in {one}"
        if name not in b:
            what = f"is missing in {other}"
        print(f"{name} {what}")
    print(f"{count} of {len(a.keys() | b.keys())} names differ or are missing")
    return count


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", metavar="OUT.json", help="file for the hashes")
    parser.add_argument("--quick", action="store_true", help="the quickest part, under a minute")
    parser.add_argument("--names", action="store_true", help="only say what IMPORTS lacks")
    parser.add_argument(
        "--compare", nargs=2, metavar=("A.json", "B.json"), help="compare two files"
    )
    told = parser.parse_args()
    if told.compare:
        return bool(compare(*told.compare))
    if told.names:
        sentences = missing_names()
        print("\n".join(sentences.values()) or "everything that IMPORTS names was found")
        return bool(sentences.keys() - OPTIONAL)
    if not told.out:
        parser.error("name a file for the hashes, or use --compare")
    return bool(freeze(told.out, told.quick))


if __name__ == "__main__":
    sys.exit(main())
