"""In every figure the axes are large enough, and no legend covers a label."""

import os
import subprocess
import sys

import matplotlib.pyplot as plt
import pytest
from house import NOTEBOOKS, TOP
from layout import layout_problems

DRAWN = [p for p in NOTEBOOKS if p.stem.startswith(("fig_", "story_")) or p.stem == "lesson"]


def figure(height, legend_at):
    fig, ax = plt.subplots(figsize=(5, height), layout="constrained")
    ax.plot([1, 2], label="a")
    ax.set(xlabel="epoch", title="x" + "\nx" * 6)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, legend_at))
    return fig


def test_small_axes_are_found():
    assert layout_problems(figure(5, legend_at=1)) == []
    (problem,) = layout_problems(figure(2, legend_at=1))
    assert "of the height" in problem


def test_covered_labels_are_found():
    assert "a legend covers 'epoch'" in layout_problems(figure(5, legend_at=0))


@pytest.mark.slow
@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.stem)
def test_layout_of_a_notebook(path, tree):
    done = subprocess.run(
        [sys.executable, TOP / "tests/layout.py", path],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == ""
