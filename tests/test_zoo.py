"""Every scheme on every architecture of the zoo, as results/zoo.json has it."""

import json
from pathlib import Path

import pytest
import torch

from zeroinit.diagnostics.zoo import ARCHITECTURES, try_schemes

pytestmark = pytest.mark.slow

TOP = Path(__file__).resolve().parent.parent
RECORD = json.loads((TOP / "results/zoo.json").read_text())["schemes"]
ANYWHERE = ("default", "zero", "zero_head", "kaiming_normal", "zero_hadamard")

torch.set_num_threads(1)  # as many tests as cores run at a time


def test_record_is_complete():
    """The same schemes on every architecture; schemes newer than the record may be missing."""
    from zeroinit import schemes

    assert list(RECORD) == list(ARCHITECTURES)
    recorded = {tuple(row) for row in RECORD.values()}
    assert len(recorded) == 1
    assert set(recorded.pop()) <= set(schemes())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_scheme_applies_or_is_refused_by_name(name):
    found = try_schemes(name)
    assert {scheme: found[scheme] for scheme in RECORD[name]} == RECORD[name]
    assert {found[scheme] for scheme in ANYWHERE} == {"applied"}
    for scheme, result in found.items():
        reasons = ("needs a", "cannot treat layer ")
        assert result == "applied" or result.startswith(reasons), (scheme, result)
