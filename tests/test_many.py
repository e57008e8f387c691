"""Ten thousand runs: planning them and reading their records is a matter of seconds."""

import os
import subprocess
import sys

MAKE = """
import sys
from dataclasses import asdict
from zeroinit.experiments.protocols import fill_in
from zeroinit.experiments.records import environment, results_path, write_record
import zeroinit.basics.files
zeroinit.basics.files.os.fsync = lambda fd: None # ten thousand of them are the disk's affair
root, env = sys.argv[1], environment("cpu")
gradients = {f"fc{i}": [[.1*k for k in range(8)] for _ in range(10)] for i in range(3)}
for i in range(10_000):
    e = fill_in(dataset="digits", epochs=10, init_args=dict(std=1. + i))
    rows = [dict(epoch=k, train_loss=.5, train_acc=.5, val_loss=.5, val_acc=.5, test_loss=.5, test_acc=.5, seconds=.1) for k in range(1, 11)]
    write_record(results_path(root, e, 0), dict(config=asdict(e), seed=0, status="done", history=rows, probes=dict(gradients=gradients), env=env, cost=dict(images_per_s=1e4, memory_gib=0.5), wall_s=1.))
"""

PLAN = """
import sys
from zeroinit.publish.cli import main
from zeroinit.experiments.protocols import fill_in
from zeroinit.experiments.suites import SUITES
def many(): return [(fill_in(dataset="digits", epochs=10, init_args=dict(std=1. + i)), range(1)) for i in range(10_000)]
SUITES["many"] = many
main(["plan", "many", "--results-root", sys.argv[1]])
"""

READ = """
import sys, time
start = time.perf_counter()
from zeroinit.experiments.frames import read
frame = read(sys.argv[1])
print(len(frame), frame.hash.nunique(), frame.test_acc.mean())
"""


def said(code, root, env):
    """What a script prints, and the processor seconds it took, the least of three times: the tests beside it slow it down."""
    took = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-c", code, str(root)],
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        after = os.times()
        assert done.returncode == 0, done.stderr
        took.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
    return done.stdout, min(took)


def test_ten_thousand_runs(tree, tmp_path):
    env = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    root = tmp_path / "results"
    nothing, planned = said(PLAN, root, env)
    assert (
        nothing.splitlines()[-1] == "10000 runs, 0 done, time not measured yet" and planned < 2
    ), planned
    subprocess.run([sys.executable, "-c", MAKE, str(root)], env=env, check=True, timeout=300)
    everything, planned = said(PLAN, root, env)
    assert everything.splitlines()[-1] == "10000 runs, 10000 done, nothing left" and planned < 2, (
        planned
    )
    frame, read = said(READ, root, env)
    assert frame.split() == ["100000", "10000", "0.5"] and read < 5, read
    print(f"plan {planned:.2f} s, read {read:.2f} s of processor time")
