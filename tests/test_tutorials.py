"""The tutorials are true: every block of docs/ is carried out as it stands, from top to bottom, in a copy of the tree."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest

TOP = Path(__file__).resolve().parent.parent
# one machine stands in for Slurm: the array's tasks, one after the other
SBATCH = """#!/bin/sh
array=${1#--array=1-}
for SLURM_ARRAY_TASK_ID in $(seq $array); do export SLURM_ARRAY_TASK_ID; sh -ec "$3" || exit 1; done
"""


def blocks(name):
    return re.findall(r"^```(\w+)\n(.*?)^```", (TOP / "docs" / f"{name}.md").read_text(), re.S | re.M)


@pytest.fixture
def steps(tree, tmp_path):
    """Carry out a tutorial in a copy of its own; returns the copy, and what each shell block printed."""
    copy = tmp_path / "zeroinit"
    shutil.copytree(tree, copy)
    (copy / ".venv").symlink_to(Path(sys.executable).parent.parent)
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name, text in dict(sbatch=SBATCH, srun='#!/bin/sh\nexec "$@"\n').items():
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)
    path = os.pathsep.join([str(stubs), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PYTHONPATH": str(copy), "PATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "RAY_TMPDIR": "/tmp"}

    def told(*args):
        done = subprocess.run(args, cwd=copy, env=env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{args}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def run(name, instead=lambda text: None):
        assert len(blocks(name)) >= 3
        script, said = "", []
        for kind, text in blocks(name):
            if kind == "python":
                script += text + "\n"
                (copy / "mine.py").write_text(script)
            elif not instead(text):
                said.append(told("bash", "-ec", text))
        return copy, said, told

    return run


def test_rerun(steps):
    copy, said, _ = steps("rerun")
    assert len(list(copy.glob("mine/results/digits/fnn/*/seed*.json"))) == 6 + 5
    assert "30 runs" in said[-1] and "fnn zero" in said[-1]


def test_extend(steps):
    copy, said, told = steps("extend")
    reached = {line.split(",")[0]: float(line.split()[-1]) for line in said[0].splitlines()}
    assert reached["default"] > 0.9 and reached["bias_half"] > 0.9 and reached["zero"] < 0.3
    for part, name in zip([t for k, t in blocks("extend") if k == "python"], ("02_further", "01_models", "00_data")):
        nb = nbformat.read(copy / f"nbs/{name}.ipynb", as_version=4)
        nb.cells.append(nbformat.v4.new_code_cell("#| export\n" + re.sub(rf"from zeroinit.{name[3:]} import .*\n", "", part)))
        nbformat.write(nb, copy / f"nbs/{name}.ipynb")
    told("nbdev_export")
    asked = "-p model two_layers -p dataset spots -p init bias_half -p augment plain -p epochs 1 -p batch_size 32 -p results_root mine/papermill"
    told("papermill", "nbs/run_experiment.ipynb", *asked.split())
    assert len(list(copy.glob("mine/papermill/spots/two_layers/bias_half-*/seed0.json"))) == 1


def test_records(steps):
    copy, _, told = steps("records")
    said = told(sys.executable, "mine.py")
    assert "test_acc" in said and "half_width" in said and "distinct" in said
    assert (copy / "curves.png").stat().st_size > 10_000


def test_cluster(steps):
    """All but `ray stop`, which would stop every Ray on this machine, other tests' too: its head's processes are ended by name."""
    pytest.importorskip("ray")

    def ours(text):
        return text.strip() == "ray stop"

    try:
        copy, said, _ = steps("cluster", ours)
    finally:
        for p in psutil.process_iter(["cmdline"]):
            if any("6390" in word for word in p.info["cmdline"] or []):
                p.kill()
    assert len(list(copy.glob("mine/cluster/digits/logistic/*/seed*.json"))) == 5
    assert len(list(copy.glob("mine/array/digits/*/*/seed*.json"))) == 30
    assert "30" in said[-1]
