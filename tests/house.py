"""What the tests of the house rules share: notebooks, their cells, what a source imports."""

import ast
import json
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((TOP / "nbs").rglob("*.ipynb"))
# a notebook whose name begins with a number exports a module
LIBRARY = [p for p in NOTEBOOKS if p.name[0].isdigit()]
MODULES = [p for p in sorted((TOP / "zeroinit").rglob("*.py")) if p.name != "_modidx.py"]


def name_of(path):
    """A notebook's or module's path as a test's name."""
    return path.relative_to(TOP).as_posix()


def cells(path, kind="code"):
    """The sources of a notebook's cells."""
    found = json.loads(path.read_text())["cells"]
    return ["".join(c["source"]) for c in found if c["cell_type"] == kind]


def exported_cells(path):
    """The sources of a notebook's exported cells."""
    return [c for c in cells(path) if c.startswith("#| export")]


def module_of(path):
    """The dotted name below zeroinit of the module that a notebook exports."""
    first = cells(path)[0].splitlines()[0]
    return first.removeprefix("#| default_exp ").strip()


def public_definitions(source):
    """Functions and classes that a source defines at its top level, without private ones."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    found = [n for n in ast.parse(source).body if isinstance(n, kinds)]
    return [n for n in found if not n.name.startswith("_")]


def imported_modules(source, package=""):
    """Modules of ours that a source imports, anywhere in it: dotted names below zeroinit.

    `package` is the package of the source, needed for relative imports: `from .x` and `from ..y.x`.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("zeroinit.")]
            found |= {n.removeprefix("zeroinit.") for n in names}
        elif isinstance(node, ast.ImportFrom):
            found |= _from_import(node, package)
    return found


def _from_import(node, package):
    module = node.module or ""
    if node.level == 1:
        module = f"{package}.{module}".strip(".")
    elif node.level == 0:
        if module != "zeroinit" and not module.startswith("zeroinit."):
            return set()
        module = module.removeprefix("zeroinit").strip(".")
    if module.count(".") or (TOP / "zeroinit" / f"{module}.py").exists():
        return {module}
    # `from zeroinit.data import datasets` imports a module
    return {f"{module}.{a.name}".strip(".") for a in node.names}
