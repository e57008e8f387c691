"""Kill a suite at random, again and again, and count what is lost, done twice, or different.

    python tests/kills.py [KILLS] [SEED]

`zeroinit run` drives six runs of the digits, at times with two drivers at once, and kill -9 hits a
worker, the process that workers are forked from, a driver, or all of them. A record must never
change once it exists. When a suite is complete, it is compared with one that nothing disturbed, and
the next suite begins. The last line counts, and the exit code is 0 if every count is.
"""

import contextlib
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

TINY = Path(__file__).resolve().parent / "tiny.py"
RUNS = 6
EPOCHS = 40


def numbers(path):
    """Everything in a record except times and the machine."""
    record = json.loads(Path(path).read_text())
    history = [
        {name: value for name, value in epoch.items() if name != "seconds"}
        for epoch in record["history"]
    ]
    return record["config"], record["seed"], record["status"], history, record["probes"]


def records(root):
    """Name -> file of the records below a folder."""
    return {str(p.relative_to(root)): p for p in sorted(Path(root).glob("*/*/*/seed*.json"))}


def start_driver(root, *more):
    """Start a driver in a session of its own."""
    options = ["--jobs", "2", "--device", "cpu", "--no-notebook", "--results-root", str(root)]
    return subprocess.Popen(
        [sys.executable, str(TINY), "run", "tiny", *options, *more],
        env={**os.environ, "PYTHONPATH": str(TINY.parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def is_running(process):
    return process.poll() is None


def family(driver):
    """The process that a driver's workers are forked from (as a list), and the workers."""
    try:
        children = psutil.Process(driver.pid).children()
        forkservers = [c for c in children if "forkserver" in " ".join(c.cmdline())]
        workers = []
        for forkserver in forkservers:
            workers += forkserver.children()
        return forkservers, workers
    except psutil.Error:
        return [], []


def kill_something(driver, rng):
    """Kill a worker of a driver, its forkserver, itself, or all; returns what it was."""
    forkservers, workers = family(driver)
    what = rng.choices(["worker", "nursery", "driver", "all"], [70, 5, 15, 10])[0]
    victims = {
        "worker": workers,
        "nursery": forkservers,
        "driver": [driver],
        "all": [driver, *forkservers, *workers],
    }[what]
    if what == "worker" and victims:
        victims = [rng.choice(victims)]
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
    return what if victims else None


class Watch:
    """Remembers every record that ever existed; one that changes was written twice."""

    def __init__(self):
        self.seen = {}  # (root, name): inode and bytes
        self.doubled = 0
        self.lost = 0
        self.odd = 0  # drivers that ended in an unexpected way
        self.odd_output = None  # of the first of them

    def look(self, root):
        """Compare the records below a folder with what they were."""
        for name, path in records(root).items():
            now = path.stat().st_ino, path.read_bytes()
            before = self.seen.get((root, name), now)
            self.doubled += before != now
            self.seen[root, name] = now
        self.lost = sum(not Path(root, name).exists() for root, name in self.seen)

    def check_end(self, driver):
        """Wait for the end of a driver, and look at how it ended."""
        output, _ = driver.communicate(timeout=600)
        failed = [
            line
            for line in output.splitlines()
            if ": failed" in line and "its process died" not in line
        ]
        if driver.returncode not in (0, 1, -9) or "Traceback" in output or failed:
            self.odd += 1
            if self.odd_output is None:
                self.odd_output = output


def count_epochs(root):
    """How many epochs are in the logs of a suite."""
    logs = Path(root).parent.glob(".runs/**/*.log")
    return sum(log.read_text().count(" epoch ") for log in logs)


def wait_for_epochs(root, rng, drivers):
    """Wait for a random number of epochs, or for the end.

    So kills hit training, writing and starting on a machine of any speed.
    """
    enough = count_epochs(root) + rng.choice([0, 1, 3, 10, 25, 40])
    deadline = time.monotonic() + 20
    while count_epochs(root) < enough and time.monotonic() < deadline:
        if not any(map(is_running, drivers)):
            break
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.1))


def complete_under_kills(root, rng, most, counts, watch):
    """Drive one suite to its end under kills, until there have been `most`."""
    while True:
        n_drivers = rng.choices([1, 2], [4, 1])[0]
        drivers = [start_driver(root) for _ in range(n_drivers)]
        while any(map(is_running, drivers)) and counts.total() < most:
            wait_for_epochs(root, rng, drivers)
            alive = [driver for driver in drivers if is_running(driver)]
            if alive:
                killed = kill_something(rng.choice(alive), rng)
                if killed:
                    counts[killed] += 1
            watch.look(root)
        for driver in drivers:
            watch.check_end(driver)
        watch.look(root)
        if len(records(root)) == RUNS:
            return


def undisturbed_numbers(root):
    """The numbers of a suite that nothing disturbs, by record."""
    driver = start_driver(root)
    assert driver.wait() == 0, driver.stdout.read()
    return {name: numbers(path) for name, path in records(root).items()}


def main(kills=200, seed=0):
    rng = random.Random(seed)
    counts = Counter()  # kills by what was killed
    watch = Watch()
    suites = 0
    different = 0
    half_written = 0
    with tempfile.TemporaryDirectory() as folder:
        expected = undisturbed_numbers(f"{folder}/calm/results")
        while suites == 0 or counts.total() < kills:
            root = f"{folder}/suite{suites}/results"
            complete_under_kills(root, rng, kills, counts, watch)
            different += sum(expected[n] != numbers(path) for n, path in records(root).items())
            half_written += len(list(Path(folder, f"suite{suites}").rglob("*.tmp")))
            suites += 1
            print(f"{counts.total()} kills, {suites} suites whole", flush=True)
        trained = sum(count_epochs(f"{folder}/suite{k}/results") for k in range(suites))

    runs = RUNS * suites
    lost = watch.lost + runs - len(watch.seen)
    print(
        f"{dict(counts)}; {suites} suites, {len(watch.seen)} records; "
        f"{trained} epochs for {runs * EPOCHS}; {half_written} half-written files left behind"
    )
    print(
        f"{counts.total()} kills: {lost} records lost, {watch.doubled} doubled, "
        f"{different} different"
    )
    if watch.odd:
        print(f"{watch.odd} drivers ended oddly; the first printed:\n{watch.odd_output}")
    return lost + watch.doubled + different + watch.odd + half_written


if __name__ == "__main__":
    sys.exit(min(main(*map(int, sys.argv[1:])), 1))
