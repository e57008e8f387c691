"""The claims are older than the runs that judge them: each record names its commit, and the claims
file of that commit is executed and compared with today's."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zeroinit.data.datasets import DATASETS
from zeroinit.diagnostics import diagnose
from zeroinit.evidence.claims import AMENDMENTS, CLAIMS, PREDICTIONS, Runs
from zeroinit.experiments.records import read_record, results_path
from zeroinit.models import build

TOP = Path(__file__).resolve().parent.parent
CLAIMS_FILES = ("zeroinit/evidence/claims.py", "zeroinit/claims.py")  # today's path and the old one
MODULES_NOW = {  # relative imports of any version of the claims file -> where these names live now
    ".basics": "zeroinit.basics.errors",
    ".suites": "zeroinit.experiments.suites",
    "..basics.errors": "zeroinit.basics.errors",
    "..experiments.suites": "zeroinit.experiments.suites",
}
NAMES_NOW = {"NORMS": "COMPARED_NORMS", "SHORTCUTS": "COMPARED_SHORTCUTS"}  # of what was renamed


def git(*arguments):
    command = ["git", *arguments]
    return subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)


def claims_file(commit):
    """The source of the claims file of a commit, wherever it was then."""
    for path in CLAIMS_FILES:
        shown = git("show", f"{commit}:{path}")
        if shown.returncode == 0:
            return shown.stdout
    raise AssertionError(f"{commit} has none of {CLAIMS_FILES}")


def with_imports_of_today(source):
    """The syntax tree of a claims file; its relative imports lead to the modules of today."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            node.module = MODULES_NOW["." * node.level + node.module]
            node.level = 0
            for alias in node.names:
                alias.asname = alias.asname or alias.name
                alias.name = NAMES_NOW.get(alias.name, alias.name)
    return tree


def questions_of(source):
    """(claim, check) -> what is compared, and where the difference must lie."""
    module = type(sys)("claims_of_a_commit")
    sys.modules[module.__name__] = module  # dataclasses look up the module that defines them
    try:
        exec(compile(with_imports_of_today(source), module.__name__, "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]

    def side(runs):
        if hasattr(runs, "suite"):
            return runs.suite, str(runs.settings)
        return runs

    # until 2026-11-28 the name was FINDINGS; older commits have none
    own = getattr(module, "PREDICTIONS", None) or getattr(module, "FINDINGS", {})
    return {
        (claim.id, check.name): (
            side(check.ours),
            side(check.against),
            check.low,
            check.high,
            check.limit,
        )
        for claim in (*module.CLAIMS.values(), *own.values())
        for check in (*claim.checks, *getattr(claim, "added", ()))
    }


def checks_and_runs():
    """(claim id, check name, experiment, seed) of every run that a check at full length needs."""
    for claim in (*CLAIMS.values(), *PREDICTIONS.values()):
        for check in (*claim.checks, *claim.added):
            for runs in (check.ours, check.against):
                if isinstance(runs, Runs):
                    for experiment, seeds in runs.experiments():
                        for seed in seeds:
                            yield claim.id, check.name, experiment, seed


def judged_by_commit():
    """Commit -> the (claim, check) pairs that are judged by records of that commit."""
    judged = {}
    for claim, check, experiment, seed in checks_and_runs():
        path = results_path(TOP / "results", experiment, seed)
        linear_on_mnist = (experiment.dataset, experiment.model) == ("mnist", "logistic")
        seen_before = linear_on_mnist and seed <= 4  # as evidence/01_claims says
        if path.exists() and not seen_before:
            commit = read_record(path)["env"]["git"]
            judged.setdefault(commit, set()).add((claim, check))
    return judged


def test_claims_were_committed_before_the_runs_that_judge_them():
    """A check at full length asks what it asked in the commits of its records. Exceptions: the
    linear model on MNIST and the claims with amendments."""
    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("needs the whole history: clone without --depth")
    by_commit = judged_by_commit()
    assert sum(len(judged) for judged in by_commit.values()) > 30
    today = questions_of((TOP / CLAIMS_FILES[0]).read_text())
    amended = {claim for amendment in AMENDMENTS for claim in amendment["claims"].split()}
    for commit, judged in by_commit.items():
        then = questions_of(claims_file(commit))
        assert then, commit
        asked_otherwise = {
            claim for claim, check in judged if then.get((claim, check)) != today[claim, check]
        }
        dropped = {claim for claim, check in then if (claim, check) not in today}
        assert asked_otherwise | dropped <= amended, (commit, asked_otherwise | dropped)


def commits_of(runs):
    """The commits of all records of one side of a check."""
    commits = set()
    for experiment, seeds in runs.experiments():
        for seed in seeds:
            path = results_path(TOP / "results", experiment, seed)
            if path.exists():
                commits.add(read_record(path)["env"]["git"])
    return commits


def test_checks_that_were_added_are_older_than_the_runs_of_one_side():
    """The other side may have been seen, as the list of amendments says."""
    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("needs the whole history: clone without --depth")
    today = questions_of((TOP / CLAIMS_FILES[0]).read_text())
    compared = 0
    for claim in CLAIMS.values():
        for check in claim.added:
            sides = [side for side in (check.ours, check.against) if isinstance(side, Runs)]
            commits_by_side = [commits_of(side) for side in sides]
            if not all(commits_by_side):
                continue  # a side without runs: nothing was seen
            is_older = []
            for commits in commits_by_side:
                then = [questions_of(claims_file(commit)) for commit in commits]
                key = (claim.id, check.name)
                is_older.append(all(questions.get(key) == today[key] for questions in then))
            assert any(is_older), (claim.id, check.name)
            compared += 1
    assert compared >= 8  # four of S7, four of J1


def test_claims_files_of_both_paths_are_found():
    """The packages came after the first runs: old commits have the file at its old path."""
    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("needs the whole history: clone without --depth")
    assert questions_of(claims_file("8b86c84"))  # the last commit with flat modules
    assert questions_of(claims_file("b124c98"))  # the first with packages
    with pytest.raises(AssertionError, match="0000000 has none of"):
        claims_file("0000000")


def exact_checks():
    """The checks whose answer follows from algebra, by what their network is."""
    found = {}
    for claim in CLAIMS.values():
        for check in (*claim.checks, *claim.added):
            if check.exact:
                experiment, _ = check.ours.find("clean")
                found[f"{claim.id}: {check.name}"] = experiment
    return found


@pytest.mark.parametrize("name", exact_checks())
def test_the_diagnosis_confirms_what_is_exact(name):
    """No weight of such a network ever receives a gradient, whatever the images."""
    experiment = exact_checks()[name]
    torch.manual_seed(0)
    image_shape = DATASETS[experiment.dataset].image_shape
    arguments = experiment.model_args or {}
    model = build(experiment.model, image_shape=image_shape, classes=10, **arguments)
    batch = (torch.rand(16, *image_shape), torch.arange(16) % 10)
    found = diagnose(model, experiment.init, batch=batch)
    assert found.verdict[0].startswith("does not learn"), found.verdict
    assert found.table["wakes"].isna().all()
