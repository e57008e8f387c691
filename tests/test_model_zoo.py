"""The records of what `diagnose` and other tools say of models, and the pages that show them."""

import json
import os
from pathlib import Path

import pytest
import torch

from zeroinit.diagnostics.model_zoo import (
    CLASSIFIERS,
    FAILURES,
    SUBJECTS,
    answer_of,
    compare_answers,
    diagnose_subject,
    judge_subject,
    truth_rows,
)
from zeroinit.diagnostics.peers import TOOLS, ask_tool, is_right, markdown_table, versions_sentence
from zeroinit.diagnostics.reported import CASES

TOP = Path(__file__).resolve().parent.parent
TRUTHS = json.loads((TOP / "results/zoo_truth.json").read_text())
PEERS = json.loads((TOP / "results/peers.json").read_text())
DATA = os.environ.get("ZEROINIT_DATA")
has_cifar10 = DATA and (Path(DATA) / "cifar10.npz").exists()

torch.set_num_threads(1)  # as many tests as cores run at a time


def test_the_record_has_models_of_both_kinds():
    assert set(TRUTHS["models"]) <= set(SUBJECTS)
    assert set(TRUTHS["models"]) & set(CLASSIFIERS) and set(TRUTHS["models"]) & set(FAILURES)


@pytest.mark.parametrize("name", TRUTHS["models"])
def test_no_false_answer(name):
    """No "learns" of a model that does not, and no "does not learn" of one that does."""
    row = TRUTHS["models"][name]
    assert compare_answers(row["verdict"], row["truth"]["answer"]) != "wrong", row["verdict"]


def test_the_notebook_shows_the_record():
    """Each row of the table stands in the output of nbs/schemes.ipynb."""
    cells = json.loads((TOP / "nbs/schemes.ipynb").read_text())["cells"]
    shown = json.dumps([cell.get("outputs", []) for cell in cells])
    for row in truth_rows(TRUTHS):
        assert row["model"] in shown and row["loss"] in shown


def test_the_page_shows_the_record_of_peers():
    page = (TOP / "docs/dead.md").read_text()
    assert markdown_table(PEERS) in page
    assert versions_sentence(PEERS) in page


def test_zeroinit_is_right_wherever_another_tool_is():
    for name, row in PEERS["models"].items():
        answers = {
            tool: is_right(row[tool]["answer"], row["truth"]) for tool in TOOLS if tool in row
        }
        assert answers["zeroinit"] is not False, name
        assert answers["zeroinit"] or True not in answers.values(), name


@pytest.mark.parametrize("name", [name for name in CASES if name in PEERS["models"]])
def test_the_answer_of_zeroinit_is_as_recorded(name):
    case = CASES[name]
    said = ask_tool("zeroinit", case.build, case.make_batch(), 1e-2)
    assert said["answer"] == PEERS["models"][name]["zeroinit"]["answer"]


RECOMPUTED = ["every parameter zero", "adapters of two zero matrices", "torchvision:ConvNeXt"]


@pytest.mark.slow
@pytest.mark.skipif(not has_cifar10, reason="there is no cifar10.npz in $ZEROINIT_DATA")
@pytest.mark.parametrize("name", [name for name in RECOMPUTED if name in TRUTHS["models"]])
def test_rows_computed_again(name):
    from zeroinit.data.datasets import load

    cifar10 = load("cifar10")
    row = TRUTHS["models"][name]
    assert judge_subject(SUBJECTS[name], cifar10)["answer"] == row["truth"]["answer"]
    said = diagnose_subject(SUBJECTS[name], cifar10)["verdict"]
    assert answer_of(said) == answer_of(row["verdict"])
