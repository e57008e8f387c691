"""How the project is built: notebooks and library agree, imports go one way, tests are near."""

import ast
import json
import re
import subprocess
import sys

import pytest
from house import (
    LIBRARY,
    MODULES,
    NOTEBOOKS,
    TOP,
    cells,
    exported_cells,
    imported_modules,
    module_of,
    name_of,
    public_definitions,
)

# which packages a package may import; every package may import `basics`, and its own modules
MAY_IMPORT = {
    "basics": set(),
    "data": set(),
    "models": set(),
    "schemes": set(),
    "diagnostics": {"schemes"},
    "training": set(),
    "experiments": {"data", "models", "schemes", "diagnostics", "training"},
    "sweep": {"data", "experiments", "figures", "training"},
    "evidence": {"experiments"},
    "figures": {"diagnostics", "evidence", "experiments"},
}
MAY_IMPORT["publish"] = set(MAY_IMPORT)
# which packages the notebooks may import that export nothing, by the beginning of their path
NOTEBOOK_MAY_IMPORT = {
    "figures/fig_": {"data", "diagnostics", "evidence", "experiments", "figures", "models"},
    "stories/story_": {
        "data",
        "diagnostics",
        "evidence",
        "experiments",
        "figures",
        "models",
        "training",
    },
    "run_experiment": {"experiments", "figures", "sweep"},
    "index": {"evidence", "experiments", "figures", "schemes", "publish"},
    "lesson": {"data"},
    "demo": {"experiments", "figures", "publish"},
    "explore": {"publish"},
    "schemes": {"diagnostics", "schemes", "publish"},
    "benchmark": {"data", "experiments", "models", "publish", "sweep", "training"},
}
ASSERTION = re.compile(r"\b(test_\w+\(|assert\b|assert_close\()")


def changed(tree):
    """What git says has changed in a tree since its commit."""
    command = ["git", "diff", "--stat"]
    done = subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_cell_ids_are_unique(path):
    """Of two cells with one id, Jupyter renames the second whenever it opens the notebook."""
    ids = [c["id"] for c in json.loads(path.read_text())["cells"]]
    assert [i for i in ids if ids.count(i) > 1] == []


def test_notebooks_are_clean_and_the_library_is_exported(tree, call):
    for command in ("nbdev_clean", "nbdev_export"):
        call(command)
        assert changed(tree) == "", f"{command} changes what is committed"


def test_readme_is_that_of_the_index(tree, call):
    call(sys.executable, "-c", "from zeroinit.publish.report import write_readme; write_readme()")
    assert changed(tree) == ""


def test_readme_says_what_the_records_say(call, tmp_path):
    code = f"""
from pathlib import Path
from zeroinit.publish.report import execute_notebook, write_readme
index = Path("nbs/index.ipynb").resolve()
executed = execute_notebook(index, Path({str(tmp_path)!r}) / "index.ipynb")
write_readme(executed, {str(tmp_path / "README.md")!r})
"""
    call(sys.executable, "-c", code)
    assert (tmp_path / "README.md").read_text() == (TOP / "README.md").read_text()


def test_readme_is_short_and_its_links_lead_somewhere():
    text = (TOP / "README.md").read_text()
    assert len(text.split()) <= 1200
    rows = [line for line in text.splitlines() if re.match(r"\| [SJ]\d", line)]
    assert len(rows) > 10 and max(map(len, rows)) <= 250
    assert "undecided" not in text
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert len(links) > 8
    assert [link for link in links if not (TOP / link).exists()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_links_between_files_lead_somewhere(path):
    text = "\n".join(cells(path, "markdown"))
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [link for link in links if link and not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != TOP / "zeroinit"], ids=name_of)
def test_packages_import_one_way(path):
    package = path.parent.name
    found = {m.partition(".")[0] for m in imported_modules(path.read_text(), package)}
    assert found - MAY_IMPORT[package] - {"basics", package} == set()


def test_the_import_table_has_no_circles():
    """Packages can be put in an order in which each imports only earlier ones."""
    left, placed = dict(MAY_IMPORT), set()
    while left:
        free = {name for name, needs in left.items() if needs <= placed}
        assert free, f"a circle among {sorted(left)}"
        placed |= free
        left = {name: needs for name, needs in left.items() if name not in free}


def test_the_import_table_names_every_package():
    folders = {p.parent.name for p in (TOP / "zeroinit").glob("*/__init__.py")}
    assert folders == set(MAY_IMPORT)
    assert {module_of(p).partition(".")[0] for p in LIBRARY} == set(MAY_IMPORT)
    assert {p.parent.name for p in LIBRARY} == set(MAY_IMPORT)


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_notebooks_are_numbered_in_import_order(package):
    """A module imports only modules of its package that have a smaller number."""
    order = [module_of(p) for p in LIBRARY if p.parent.name == package]
    for i, module in enumerate(order):
        source = (TOP / f"zeroinit/{module.replace('.', '/')}.py").read_text()
        later = imported_modules(source, package) & set(order[i:])
        assert later - {module} == set(), module


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_a_notebook_is_called_as_its_module(path):
    package, name = module_of(path).split(".")
    assert (path.parent.name, path.stem[3:]) == (package, name)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_plot_functions_leave_the_settings_of_matplotlib_alone(path):
    """A theme is switched on in `figure_style` only, which takes it back."""
    source = path.read_text()
    if path.name == "layer_map.py":
        source = source.replace("sns.set_theme(**SEABORN_THEME)", "", 1)
    assert not re.search(r"set_theme|sns\.set|style\.use|rcParams\[.*\] =|rcParams\.update", source)


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p not in LIBRARY], ids=name_of)
def test_notebooks_import_what_they_may(path):
    place = path.relative_to(TOP / "nbs").as_posix()
    may = next(v for k, v in NOTEBOOK_MAY_IMPORT.items() if place.startswith(k))
    found = {m.partition(".")[0] for m in imported_modules("\n".join(cells(path)))}
    doors = {"build", "diagnose", "fit", "initialize", "load", "read", "run", "schemes"}
    assert found - may - doors - {"basics"} == set()


def test_imports_are_found_in_all_forms():
    source = """
from zeroinit.data.batches import Batches
from .records import read
from ..models.blocks import mlp
from . import suites
import zeroinit.training.loop as loop
from zeroinit.data import datasets
def f():
    from zeroinit import diagnose
"""
    assert imported_modules(source, "experiments") == {
        "data.batches",
        "experiments.records",
        "models.blocks",
        "experiments.suites",
        "training.loop",
        "data.datasets",
        "diagnose",
    }


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_definitions_are_tested_within_three_cells(path):
    code = cells(path)
    assert code[0].startswith("#| default_exp")
    for i, source in enumerate(code):
        if not source.startswith("#| export"):
            continue
        near = [c for c in code[i + 1 :] if not c.startswith("#| export")][:3]
        for definition in public_definitions(source):
            name = re.compile(rf"\b{definition.name}\b")
            tested = any(name.search(c) and ASSERTION.search(c) for c in near)
            assert tested, f"no test within three cells of {definition.name}"


@pytest.mark.parametrize(
    "path",
    [*LIBRARY, TOP / "nbs/run_experiment.ipynb", TOP / "nbs/benchmark.ipynb"],
    ids=name_of,
)
def test_library_notebooks_hold_no_outputs(path):
    found = json.loads(path.read_text())["cells"]
    assert [c["outputs"] for c in found if c.get("outputs")] == []  # `make prepare` clears them


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_public_functions_have_docstrings(path):
    for source in exported_cells(path):
        for definition in public_definitions(source):
            assert ast.get_docstring(definition), definition.name


def raised(function):
    """Names of the errors that leave a function.

    Those raised in its own body: not in a function within, not where it catches them itself, and
    not raised again as they came.
    """
    found = set()
    inner_scopes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)

    def look(node, caught):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, inner_scopes):
                continue
            in_try = isinstance(node, ast.Try) and bool(node.handlers) and child in node.body
            if isinstance(child, ast.Raise) and child.exc and not (caught or in_try):
                error = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
                if isinstance(error, ast.Name):
                    found.add(error.id)
            look(child, caught or in_try)

    look(function, False)
    return found


def test_raised_sees_what_leaves_a_function():
    source = """
def f():
    if x: raise A("x") from None
    def g(): raise B("y")
    try: raise C
    except C: raise
    except OSError as e: raise D(e)
    raise e.kept
"""
    assert raised(ast.parse(source).body[0]) == {"A", "D"}


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_public_functions_say_what_they_raise(path):
    for source in exported_cells(path):
        for definition in public_definitions(source):
            if isinstance(definition, ast.FunctionDef):
                text = ast.get_docstring(definition) or ""
                silent = [e for e in raised(definition) if not re.search(rf"\b{e}\b", text)]
                assert silent == [], definition.name


def test_committed_records_are_whole_and_of_this_code(call):
    """Every run of the suites that the README draws has its record, and every record is a suite's.

    A record counts if it lies under the name that today's code gives its run.
    """
    code = """
from pathlib import Path
from zeroinit.experiments.records import is_done, read_record, results_path
from zeroinit.experiments.suites import SUITES

DRAWN = (
    "schicho-mnist", "unseen-mnist", "schicho-flaws", "bias-scale", "short-residual-cnn",
    "update-order", "mixed-fnn", "schicho-gradients", "reduced-cifar", "reduced-longer",
)
planned = set()
for name, suite in SUITES.items():
    for experiment, seeds in suite():
        paths = [results_path("results", experiment, seed) for seed in seeds]
        planned.update(paths)
        for_cuda = name == "schicho-mnist" and experiment.model == "cnn"
        if name in DRAWN and not for_cuda:
            missing = [p for p in paths if not is_done(p)]
            assert not missing, missing
committed = set(Path("results").resolve().rglob("seed*.json"))
for path in committed:
    assert read_record(path)["env"]["dirty"] is False, path
assert not committed - planned, committed - planned
"""
    call(sys.executable, "-c", code)


def test_nothing_of_this_machine_is_in_the_tree(tree):
    """No absolute home or temporary path in notebooks, records or library."""
    notebooks = (tree / "nbs").rglob("*.ipynb")
    records = (tree / "results").rglob("*.json")
    modules = (tree / "zeroinit").rglob("*.py")
    for path in [*notebooks, *records, *modules]:
        text = path.read_text()
        found = [w for w in ("/home/", "/Users/", "/root/", "/tmp/", str(TOP)) if w in text]
        assert found == [], path
