"""`zeroinit report`, on a copy of the tree: the same bytes for the same records."""

import hashlib
import shutil
import sys


def test_same_records_same_bytes(tree, call, tmp_path):
    copy = shutil.copytree(tree, tmp_path / "zeroinit")

    def held():
        return {
            p.relative_to(copy): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in (
                copy / "README.md",
                *(copy / "images").iterdir(),
                *(copy / "nbs").rglob("*.ipynb"),
            )
        }

    def made():
        for path in (copy / "README.md", *(copy / "images").iterdir()):
            path.unlink()
        call(sys.executable, "-m", "zeroinit.publish.cli", "report", cwd=copy, timeout=1200)
        return held()

    committed = held()
    first = made()
    assert set(first) == set(committed)
    if (
        first != committed
    ):  # made on another processor, where last digits may differ: then it must agree with itself
        assert made() == first
