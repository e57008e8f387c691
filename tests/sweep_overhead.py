"""What a suite costs beside its training: 60 runs of about one second each, two at a time.

    python tests/sweep_overhead.py [RUNS]

Three ways, each in fresh processes, one after the other: two bare processes that import the library
and call `run` in a loop; `zeroinit run` without notebooks; `zeroinit run` with a papermill run for
each. The first is the measure: training, records and checkpoints, and nothing of the suite. The
last line gives the ratios.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTINGS = "dict(dataset='digits', model='fnn', init='bias_normal', epochs={epochs}, probe_steps=0)"

BARE = """
import sys
import torch
from zeroinit.experiments.protocols import fill_in
from zeroinit.experiments.runner import run

torch.set_num_threads(1)
experiment = fill_in(**{settings})
for seed in range(int(sys.argv[1]), {runs}, 2):
    run(experiment, seed, results_root={root!r}, device="cpu", quiet=True)
"""

SWEEP = """
import sys
from zeroinit.experiments.protocols import fill_in
from zeroinit.experiments.suites import SUITES
from zeroinit.sweep.driver import run_suite

SUITES["second"] = lambda: [(fill_in(**{settings}), range({runs}))]
options = dict(jobs=2, results_root={root!r}, device="cpu", notebook={notebook})
if __name__ == "__main__":
    sys.exit(run_suite("second", **options))
"""


def time_script(script, folder, processes=(("",),)):
    """Seconds until a script has ended in all processes, each with arguments of its own."""
    path = Path(folder) / "script.py"
    path.write_text(script)
    start = time.perf_counter()
    running = [
        subprocess.Popen([sys.executable, str(path), *args], stdout=subprocess.DEVNULL)
        for args in processes
    ]
    codes = [process.wait() for process in running]
    assert codes == [0] * len(running), codes
    return time.perf_counter() - start


def training_seconds(root):
    """Seconds of training and evaluation in each record."""
    return [json.loads(path.read_text())["wall_s"] for path in Path(root).rglob("seed*.json")]


def measure(runs=60, epochs=40):
    """Wall seconds and training seconds of each way, and the number of executed notebooks."""
    common = dict(settings=SETTINGS.format(epochs=epochs), runs=runs)
    walls = {}
    trained = {}
    with tempfile.TemporaryDirectory() as folder:
        roots = {way: f"{folder}/{way}/results" for way in ("bare", "plain", "notebook")}
        bare = BARE.format(root=roots["bare"], **common)
        walls["bare"] = time_script(bare, folder, [("0",), ("1",)])
        for way in ("plain", "notebook"):
            sweep = SWEEP.format(root=roots[way], notebook=way == "notebook", **common)
            walls[way] = time_script(sweep, folder)
        for way, root in roots.items():
            seconds = training_seconds(root)
            assert len(seconds) == runs, (way, len(seconds))
            trained[way] = sum(seconds)
        notebooks = len(list(Path(folder).glob("notebook/.runs/**/*.ipynb")))
    return walls, trained, notebooks


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    walls, trained, notebooks = measure(n)
    for way, wall in walls.items():
        each = trained[way] / n
        print(f"{way:9} {wall:6.1f} s for {n} runs, two at a time; training {each:.2f} s a run")
    print(f"{notebooks} executed notebooks; {os.cpu_count()} cores")
    plain = walls["plain"] / walls["bare"] - 1
    notebook = walls["notebook"] / walls["bare"] - 1
    print(f"against bare: without notebooks {plain:+.1%}, with notebooks {notebook:+.1%}")
