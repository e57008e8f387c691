"""Every scheme on every architecture of the zoo, as results/zoo.json has it."""

import json
from pathlib import Path

import pytest
import torch

from zeroinit.diagnostics.zoo import ARCHITECTURES, row

RECORD = json.loads((Path(__file__).resolve().parent.parent / "results/zoo.json").read_text())[
    "schemes"
]

torch.set_num_threads(1)  # as many tests as cores run at a time


def test_record_is_whole():
    from zeroinit import schemes

    assert list(RECORD) == list(ARCHITECTURES)
    assert {tuple(r) for r in RECORD.values()} == {tuple(schemes())}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_scheme_applies_or_is_refused_by_name(name):
    found = row(name)
    assert "not finite" not in found.values()
    assert found == RECORD[name]
    assert {
        found[s] for s in ("default", "zero", "zero_head", "kaiming_normal", "zero_hadamard")
    } == {"applied"}
    assert all(
        what == "applied" or what.startswith(("needs a", "cannot treat layer "))
        for what in found.values()
    )
