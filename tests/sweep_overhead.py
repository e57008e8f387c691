"""What a suite costs beside its training: 60 runs of about one second each, two at a time.

    python tests/sweep_overhead.py [RUNS]

Three ways, each in fresh processes, one after the other: two bare processes that import the library and call `run` in a loop;
`zeroinit run` without notebooks; `zeroinit run` with a papermill run for each. The first is the measure: training, records and
checkpoints, and nothing of the suite. A line at the end gives the ratios.
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
import sys, torch
torch.set_num_threads(1)
from zeroinit.experiments.runner import run
from zeroinit.experiments.protocols import fill_in
for seed in range(int(sys.argv[1]), {runs}, 2): run(fill_in(**{settings}), seed, results_root={root!r}, device="cpu", quiet=True)
"""

SWEEP = """
import sys
from zeroinit.experiments.protocols import fill_in
from zeroinit.experiments.suites import SUITES
from zeroinit.sweep.driver import run_suite
SUITES["second"] = lambda: [(fill_in(**{settings}), range({runs}))]
if __name__ == "__main__": sys.exit(run_suite("second", jobs=2, results_root={root!r}, device="cpu", notebook={notebook}))
"""


def timed(script, folder, processes=(("",),)):
    path = Path(folder) / "script.py"
    path.write_text(script)
    start = time.perf_counter()
    running = [
        subprocess.Popen([sys.executable, str(path), *args], stdout=subprocess.DEVNULL)
        for args in processes
    ]
    codes = [p.wait() for p in running]
    assert codes == [0] * len(running), codes
    return time.perf_counter() - start


def trained(root):
    """Seconds of training and evaluation in the records."""
    return [json.loads(p.read_text())["wall_s"] for p in Path(root).rglob("seed*.json")]


def measure(runs=60, epochs=40):
    """Wall seconds of each way, and the training seconds of the bare one."""
    told = dict(settings=SETTINGS.format(epochs=epochs), runs=runs)
    walls = {}
    with tempfile.TemporaryDirectory() as d:
        root = {way: f"{d}/{way}/results" for way in ("bare", "plain", "notebook")}
        walls["bare"] = timed(BARE.format(root=root["bare"], **told), d, [("0",), ("1",)])
        for way in ("plain", "notebook"):
            walls[way] = timed(SWEEP.format(root=root[way], notebook=way == "notebook", **told), d)
        seconds = {way: trained(folder) for way, folder in root.items()}
        assert {len(s) for s in seconds.values()} == {runs}, {
            way: len(s) for way, s in seconds.items()
        }
        notebooks = len(list(Path(d).glob("notebook/.runs/**/*.ipynb")))
    return walls, {way: sum(s) for way, s in seconds.items()}, notebooks


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    walls, trained_s, notebooks = measure(n)
    for way, wall in walls.items():
        print(
            f"{way:9} {wall:6.1f} s for {n} runs, two at a time; training {trained_s[way] / n:.2f} s a run"
        )
    print(f"{notebooks} executed notebooks; {os.cpu_count()} cores")
    print(
        f"against bare: without notebooks {walls['plain'] / walls['bare'] - 1:+.1%}, with notebooks {walls['notebook'] / walls['bare'] - 1:+.1%}"
    )
