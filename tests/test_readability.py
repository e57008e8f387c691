"""What a stranger reads: ruff finds nothing, lines are short, a public name means one thing."""

import ast
import subprocess
import sys
from collections import defaultdict

import measures
import pytest
from house import MODULES, TOP

SOURCES = ("nbs", "tests", "docs", "zeroinit", "setup.py")


def run_ruff(*args):
    """Run ruff at the top of the tree; returns its exit code and what it printed."""
    command = [sys.executable, "-m", "ruff", *args, "--no-cache", *SOURCES]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_ruff_finds_nothing():
    code, text = run_ruff("check", "--output-format", "concise")
    assert code == 0, text


def test_ruff_laid_everything_out():
    code, text = run_ruff("format", "--check")
    assert code == 0, text


def test_modules_use_no_name_that_only_a_notebook_defines():
    """A name that a notebook's test cell imports exists in the notebook, not in the module."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F"]
    done = subprocess.run(
        [*command, "zeroinit"], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", measures.LIMITS)
def test_measures_hold(name):
    """Lines of code, nested comprehensions, conditional expressions, tuple assignments."""
    total = measures.Counts()
    for path in measures.library():
        total = total + measures.count(path.read_text())
    assert total.lines > 5000
    assert total.rates()[name] <= measures.LIMITS[name]


def test_measures_count():
    source = """
def f(x):
    "Docstring."
    a, b = 1, 2  # comment
    c = [[i for i in range(3)] for j in range(3)]
    return a if x else b
"""
    found = measures.count(source)
    assert (found.lines, found.nested_comprehensions) == (4, 1)
    assert (found.conditional_expressions, found.tuple_assignments) == (1, 1)
    assert measures.count("x = 1  # " + 120 * "-").over_100 == 0
    assert measures.count("x = '" + 100 * "-" + "'").over_100 == 1


def exported_names(source):
    """The names in a module's `__all__`."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return []


def test_no_two_modules_define_the_same_public_name():
    homes = defaultdict(list)
    for path in MODULES:
        if path.name != "__init__.py":
            for name in exported_names(path.read_text()):
                homes[name].append(path.relative_to(TOP).as_posix())
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}
