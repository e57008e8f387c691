"""Every notebook runs, as nbdev runs it; the experiment and the benchmark notebook have tests of their own."""
from pathlib import Path

import pytest

NOTEBOOKS = sorted(p.name for p in (Path(__file__).resolve().parent.parent / "nbs").glob("*.ipynb"))


@pytest.mark.parametrize("name", [n for n in NOTEBOOKS if n not in ("run_experiment.ipynb", "benchmark.ipynb")])
def test_notebook(name, call):
    done = call("nbdev_test", "--path", f"nbs/{name}", "--n_workers", "0", env={"OMP_NUM_THREADS": "1", "ZEROINIT_DATA": "/no-such-folder"})
    assert "Success." in done.stdout
