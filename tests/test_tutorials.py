"""The tutorials are true: every block of docs/ is run as it stands, in a copy of the tree.

A block of output below a command shows what the command prints.
"""

import ast
import configparser
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
pytestmark = pytest.mark.slow
# one machine stands in for Slurm: the array's tasks, one after the other
SBATCH = """#!/bin/sh
array=${1#--array=1-}
for SLURM_ARRAY_TASK_ID in $(seq $array); do export SLURM_ARRAY_TASK_ID; sh -ec "$3" || exit 1; done
"""


def blocks(name):
    return re.findall(
        r"^```(\w+)\n(.*?)^```", (TOP / "docs" / f"{name}.md").read_text(), re.S | re.M
    )


def alike(shown, said):
    """The same words; numbers with a point may differ by a tenth, since they are a machine's."""

    def same(a, b):
        return a == b or (
            all(re.fullmatch(r"\d+\.\d+", x) for x in (a, b)) and abs(float(a) - float(b)) <= 0.1
        )

    a, b = shown.split(), said.split()
    return len(a) == len(b) and all(map(same, a, b))


@pytest.fixture
def steps(tree, tmp_path):
    """Run a tutorial in a copy of its own, in a home where nothing is set up yet.

    Returns the copy, what each shell block printed, and a function that runs a command there.
    `instead` replaces a block that cannot be run here.
    """
    copy = tmp_path / "zeroinit"
    shutil.copytree(tree, copy)
    (copy / ".venv").symlink_to(Path(sys.executable).parent.parent)
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name, text in dict(sbatch=SBATCH, srun='#!/bin/sh\nexec "$@"\n').items():
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)
    path = os.pathsep.join([str(stubs), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {
        **os.environ,
        "PYTHONPATH": str(copy),
        "PATH": path,
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "agg",
        "RAY_TMPDIR": "/tmp",
    }

    def told(*args):
        done = subprocess.run(
            args,
            cwd=copy,
            env=env,
            capture_output=True,
            text=True,
            timeout=600,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, f"{args}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def run(name, instead=lambda text: text):
        assert len(blocks(name)) >= 3
        script, said = "", []
        for i, (kind, text) in enumerate(blocks(name)):
            if kind == "python":
                script += text + "\n"
                (copy / "mine.py").write_text(script)
            elif kind == "sh":
                said.append(told("bash", "-ec", instead(text)))
            elif kind == "text" and blocks(name)[i - 1][0] == "sh":
                assert alike(text, said[-1]), f"{text}\n{said[-1]}"
        return copy, said, told

    run.copy, run.call = copy, told
    return run


def test_alike():
    assert (
        alike("a  0.86 3", "a 0.91 3\n")
        and not alike("a 0.86", "a 0.97")
        and not alike("a 0.86 3", "a 0.86 4")
        and not alike("a", "a b")
    )


def test_rerun(steps):
    """All but the clone and `make dev`, for which the copy and the tests' own Python stand in."""

    def instead(text):
        if not text.startswith("git clone"):
            return text
        config = configparser.ConfigParser()
        config.read(TOP / "settings.ini")
        address = config["DEFAULT"]["git_url"]
        assert text == f"git clone {address}\ncd zeroinit\nmake dev\n"
        return "make -n dev"

    copy, said, told = steps("rerun", instead)
    assert len(list(copy.glob("runs/digits/fnn/*/seed*.json"))) == 9
    assert "equal to the digit" in said[-3]
    assert len(list(copy.glob("mine/results/digits_parity/fnn/*/seed*.json"))) == 5
    assert "30 runs, 0 done" in said[-2] and "demo: 5 runs in" in said[-2]
    assert "0 to do" in told(
        "zeroinit", "run", "demo", "--only", "fnn zero", "--results-root", "mine/results"
    )
    assert "demo is left out: there are no gradients of default or bias_normal" in said[-1]
    assert (copy / "mine/images/demo_accuracy.png").exists()


PARTS = {  # notebook in which the tutorial puts a part for good -> the part's first Python block
    "schemes/06_literature": 0,
    "models/01_networks": 4,
    "data/00_datasets": 6,
    "experiments/05_suites": 9,
}


def without_known_imports(definition, notebook):
    """A part without the names that its notebook defines or imports already."""
    exported = [c.source for c in notebook.cells if c.source.startswith("#| export")]
    known = set()
    for node in ast.parse("\n".join(exported)).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            known |= {alias.asname or alias.name for alias in node.names}
        known.add(getattr(node, "name", None))
    tree = ast.parse(definition)
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            node.names = [a for a in node.names if (a.asname or a.name) not in known]
    lines = definition.splitlines()
    for node in reversed(tree.body):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            kept = [ast.unparse(node)] if node.names else []
            lines[node.lineno - 1 : node.end_lineno] = kept
    return "\n".join(lines).strip()


def add_cells(notebook, definition, test):
    """Add a tutorial's part to a notebook: an exported function, and the cell that tests it.

    Returns the imports that the exported cell begins with.
    """
    content = nbformat.read(notebook, as_version=4)
    definition = without_known_imports(definition, content)
    imports = re.findall(r"^(?:from|import) .*", definition, re.M)
    for source in ("#| export\n" + definition, test.strip()):
        content.cells.append(nbformat.v4.new_code_cell(source))
    nbformat.write(content, notebook)
    return imports


def copy_figure(folder, drawing):
    """A copy of fig_wave with another title, suite and code, as the tutorial asks for in words."""
    content = nbformat.read(folder / "fig_wave.ipynb", as_version=4)
    for cell in content.cells:
        cell.source = cell.source.replace("fig_wave", "fig_spots")
        cell.source = cell.source.replace("# The wave", "# Spots")
        cell.source = re.sub(
            r"^> .*", "> Test accuracy on spots in noise.", cell.source, flags=re.M
        )
        cell.source = cell.source.replace('"schicho-gradients"', '"spots-in-noise"')
        if cell.cell_type == "code":
            cell.outputs = []
    content.cells[-1].source = drawing.strip()
    nbformat.write(content, folder / "fig_spots.ipynb")


def test_extend(steps):
    """All five parts are added for good, as the text says, and pass the tests of the house."""
    python = [text for kind, text in blocks("extend") if kind == "python"]
    assert len(python) == 12
    tutorial = (TOP / "docs/extend.md").read_text()
    copy = steps.copy

    def instead(text):
        if text.startswith("ruff format"):
            for name, i in PARTS.items():
                imports = add_cells(copy / f"nbs/{name}.ipynb", python[i], python[i + 1])
                needed = f"`{imports[0]}`" if imports else "none"
                assert f"| `nbs/{name}.ipynb` | {needed} |" in tutorial and len(imports) < 2
        if text.startswith("papermill nbs/figures"):
            copy_figure(copy / "nbs/figures", python[-1])
        return text

    _, outputs, _ = steps("extend", instead)
    assert len(list(copy.glob("mine/papermill/spots/two_layers/bias_half-*/seed0.json"))) == 1
    assert len(list(copy.glob("mine/suite/spots/two_layers/*/seed*.json"))) == 4
    assert any("spots-in-noise: 4 runs in" in output for output in outputs)
    assert (copy / "mine/images/fig_spots.png").stat().st_size > 10_000
    assert re.search(r"\d{2,} passed", outputs[-1]) and "failed" not in outputs[-1].split(",")[0]
    # the notebooks of the scheme's folder still run, and the others that have changed
    assert "Success." in outputs[-2]
    for name in PARTS:
        if not name.startswith("schemes/"):
            path = f"nbs/{name}.ipynb"
            assert "Success." in steps.call("nbdev_test", "--path", path, "--n_workers", "0")


def test_records(steps):
    """Its output is that of the committed records, to the last digit."""
    copy, _, told = steps("records")
    said, shown = told(sys.executable, "mine.py"), [t for k, t in blocks("records") if k == "text"]
    assert len(shown) == 2 and all(t in said for t in shown)
    rows = [line.split() for line in shown[0].splitlines()[1:]]
    assert len({r[0] for r in rows}) == len({r[1] for r in rows}) == len(rows) and {
        r[-1] for r in rows
    } == {"5"}  # one experiment a scheme, five seeds
    assert (copy / "curves.png").stat().st_size > 10_000


def test_cluster(steps):
    """On a port of its own, since another Ray may use the usual one.

    `ray stop` would stop that too, so the head's processes are found by the port and killed.
    """
    pytest.importorskip("ray")

    def ours(text):
        return "true" if text == "ray stop\n" else text.replace("6379", "6390")

    try:
        copy, said, _ = steps("cluster", ours)
    finally:
        for p in psutil.process_iter(["cmdline"]):
            if any("6390" in word for word in p.info["cmdline"] or []):
                p.kill()
    assert len(list(copy.glob("mine/cluster/digits_parity/logistic/*/seed*.json"))) == 5
    assert len(list(copy.glob("mine/array/digits_parity/*/*/seed*.json"))) == 30
    assert "30" in said[-1]
