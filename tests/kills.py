"""Kill a suite at random, again and again, and count what is lost, done twice, or different.

    python tests/kills.py [KILLS] [SEED]

Six runs of the digits are driven by `zeroinit run`, at times by two drivers at once, and kill -9 hits a worker, the process
that workers come from, a driver, or all of them. A record, once there, must never change; when a suite is whole it is compared
with one that nobody disturbed, and the next one begins. The last line counts, and the exit code is 0 if every count is.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import contextlib

TINY = Path(__file__).resolve().parent / "tiny.py"
RUNS = 6


def numbers(path):
    """Everything in a record but times and the machine."""
    r = json.loads(Path(path).read_text())
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in r["history"]]
    return r["config"], r["seed"], r["status"], history, r["probes"]


def records(root):
    """Name -> file, of the records below a folder."""
    return {str(p.relative_to(root)): p for p in sorted(Path(root).glob("*/*/*/seed*.json"))}


def drive(root, *more):
    """A driver in a session of its own."""
    env = {**os.environ, "PYTHONPATH": str(TINY.parent.parent)}
    args = [
        sys.executable,
        str(TINY),
        "run",
        "tiny",
        "--jobs",
        "2",
        "--device",
        "cpu",
        "--no-notebook",
        "--results-root",
        str(root),
        *more,
    ]
    return subprocess.Popen(
        args,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def family(driver):
    """The process that workers come from, and the workers."""
    try:
        children = psutil.Process(driver.pid).children()
        nurseries = [c for c in children if "forkserver" in " ".join(c.cmdline())]
        return nurseries, [w for n in nurseries for w in n.children()]
    except psutil.Error:
        return [], []


def kill(driver, chance):
    """Kill something of a driver's; what it was."""
    nurseries, workers = family(driver)
    what = chance.choices(["worker", "nursery", "driver", "all"], [70, 5, 15, 10])[0]
    victims = {
        "worker": workers,
        "nursery": nurseries,
        "driver": [driver],
        "all": [driver, *nurseries, *workers],
    }[what]
    victims = [chance.choice(victims)] if what == "worker" and victims else victims
    for v in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(v.pid, signal.SIGKILL)
    return what if victims else None


class Watch:
    """Knows every record that was ever there; a record that is not what it was, was made twice."""

    def __init__(self):
        self.seen, self.doubled, self.odd, self.said = {}, 0, 0, None

    def look(self, root):
        for name, path in records(root).items():
            now = path.stat().st_ino, path.read_bytes()
            self.doubled += self.seen.setdefault((root, name), now) != now
            self.seen[root, name] = now
        self.lost = sum(not Path(root, name).exists() for root, name in self.seen)


def epochs(root):
    """How many epochs the logs of a suite tell of."""
    return sum(p.read_text().count(" epoch ") for p in Path(root).parent.glob(".runs/**/*.log"))


def patient(root, chance, drivers):
    """Wait for some more epochs, as many as chance wants, or for the end; so kills hit training, writing and starting on a machine of any speed."""
    until, limit = epochs(root) + chance.choice([0, 1, 3, 10, 25, 40]), time.monotonic() + 20
    while (
        epochs(root) < until and time.monotonic() < limit and any(d.poll() is None for d in drivers)
    ):
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 0.1))


def disturbed(root, chance, enough, counts, watch):
    """Drive one suite to its end under kills; `enough` says when to leave it in peace."""
    while True:
        drivers = [drive(root) for _ in range(chance.choices([1, 2], [4, 1])[0])]
        while any(d.poll() is None for d in drivers) and not enough(counts):
            patient(root, chance, drivers)
            alive = [d for d in drivers if d.poll() is None]
            if alive and (what := kill(chance.choice(alive), chance)):
                counts[what] += 1
            watch.look(root)
        for d in drivers:
            said, _ = d.communicate(timeout=600)
            failed = [
                x for x in said.splitlines() if ": failed" in x and "its process died" not in x
            ]
            watch.odd += d.returncode not in (0, 1, -9) or "Traceback" in said or bool(failed)
            if watch.odd and watch.said is None:
                watch.said = said
        watch.look(root)
        if len(records(root)) == RUNS and not any(d.poll() is None for d in drivers):
            return


def main(kills=200, seed=0):
    chance, counts, watch = random.Random(seed), Counter(), Watch()
    with tempfile.TemporaryDirectory() as d:
        calm = drive(f"{d}/calm/results")
        assert calm.wait() == 0, calm.stdout.read()
        whole = {name: numbers(path) for name, path in records(f"{d}/calm/results").items()}
        different = halves = suites = 0
        while suites == 0 or sum(counts.values()) < kills:
            root = f"{d}/suite{suites}/results"
            disturbed(root, chance, lambda c: sum(c.values()) >= kills, counts, watch)
            different += sum(whole[name] != numbers(path) for name, path in records(root).items())
            halves += len(list(Path(d, f"suite{suites}").rglob("*.tmp")))
            suites += 1
            print(f"{sum(counts.values())} kills, {suites} suites whole", flush=True)
        lines = [
            line.split()[1]
            for p in Path(d).glob("suite*/.runs/**/*.log")
            for line in p.read_text().splitlines()
        ]
    lost = watch.lost + RUNS * suites - len(watch.seen)
    trained = Counter(lines)["epoch"]
    print(
        f"{dict(counts)}; {suites} suites, {len(watch.seen)} records; {trained} epochs for {RUNS * suites * 40}; {halves} half-written files left behind"
    )
    print(
        f"{sum(counts.values())} kills: {lost} records lost, {watch.doubled} doubled, {different} different"
    )
    if watch.odd:
        print(f"{watch.odd} drivers ended oddly; the first said:\n{watch.said}")
    return lost + watch.doubled + different + watch.odd + halves


if __name__ == "__main__":
    sys.exit(min(main(*map(int, sys.argv[1:])), 1))
