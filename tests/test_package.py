"""What gets installed: a wheel that works outside the tree, and an import that costs no more than torch's."""

import subprocess
import sys


def test_wheel_from_sdist_works_outside_the_tree(tree, call, tmp_path):
    call(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", tree
    )  # sdist, then the wheel from it
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    call(sys.executable, "-m", "zipfile", "-e", wheel, tmp_path / "site")
    names = sorted(p.stem for p in (tree / "zeroinit").glob("*.py") if p.stem != "__init__")
    code = f"""
import importlib, zeroinit
assert zeroinit.__file__.startswith({str(tmp_path)!r}), zeroinit.__file__
for name in {names}: importlib.import_module("zeroinit." + name)
from zeroinit.experiments.records import environment
from zeroinit.experiments.frames import published
from zeroinit.publish.explorer import page
assert "There are no records" in page("nowhere")
assert len(published()) > 20 and environment("cpu")["git"] is None
print(*zeroinit.schemes())
"""
    done = call(
        sys.executable, "-c", code, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")}
    )
    assert done.stdout.split()[:2] == ["default", "zero"]
    (metadata,) = (tmp_path / "site").glob("*.dist-info")
    assert "zeroinit = zeroinit.publish.cli:main" in (metadata / "entry_points.txt").read_text()


def test_import_waits_for_nothing(call):
    heavy = [
        "torch",
        "torchvision",
        "pandas",
        "seaborn",
        "matplotlib",
        "sklearn",
        "scipy",
        "papermill",
    ]
    call(
        sys.executable,
        "-c",
        f"import sys, zeroinit, zeroinit.sweep.papermill_output; assert not set({heavy}) & set(sys.modules), sys.modules.keys() & set({heavy})",
    )
    later = heavy[1:]
    call(
        sys.executable,
        "-c",
        f"import sys, torch; before = set(sys.modules); from zeroinit import initialize; import zeroinit.training.loop, zeroinit.models.networks, zeroinit.data.datasets, zeroinit.diagnostics.probes; new = set(sys.modules) - before; assert not set({later}) & new, new & set({later})",
    )


def test_unknown_attribute():
    done = subprocess.run(
        [sys.executable, "-c", "import zeroinit; zeroinit.initialise"],
        capture_output=True,
        text=True,
    )
    assert "module 'zeroinit' has no attribute 'initialise'" in done.stderr
