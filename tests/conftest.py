"""What no notebook cell can test: processes, terminals, kills, the tree as a whole."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent

# A shell that starts the tests in the background has Ctrl-C ignored, and every process below
# inherits that
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A copy of the working tree with one commit.

    `git diff` shows there what a tool changed, and the tree itself stays as it is.
    """
    copy = tmp_path_factory.mktemp("tree") / "zeroinit"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=TOP,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        if (TOP / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / name, copy / name)
    for args in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "copy"],
    ):
        subprocess.run(["git", *args], cwd=copy, check=True)
    return copy


@pytest.fixture(scope="session")
def call(tree):
    """Run a command in the copied tree, with the copy's library; returns the finished process."""

    def run(*args, cwd=tree, check=True, timeout=300, env=None, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        env = {**os.environ, "PYTHONPATH": str(tree), **(env or {})}
        done = subprocess.run(
            [str(a) for a in args],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **kw,
        )
        if check and done.returncode:
            pytest.fail(
                f"{args} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            )
        return done

    return run


def pytest_terminal_summary(terminalreporter, config):
    config.counts = {
        k: len(terminalreporter.stats.get(k, [])) for k in ("passed", "failed", "error", "skipped")
    }


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    counts = getattr(config, "counts", None)
    if counts:
        failed = counts["failed"] + counts["error"]
        print(f"{counts['passed']} passed, {failed} failed, {counts['skipped']} skipped")
