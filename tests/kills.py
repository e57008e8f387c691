"""Kill a suite again and again, and count what is lost, done twice, or different.

    python tests/kills.py [KILLS] [SEED] [--how random|placed|signals]

`zeroinit run` drives six runs of the digits, at times with two drivers at once.

random    kill -9 hits a worker, the process that workers are forked from, a driver, or all three
placed    a worker or a driver dies just before or just after a system call on a record, on a
          checkpoint or on a lock; the suite begins with a damaged record, a damaged checkpoint and
          files that a killed process has left
signals   bursts of signals of many sorts hit these processes; a suspended one goes on later

A record must never change once it exists. When a suite is complete, the command runs once more and
must find nothing to do; then the suite is compared with one that nothing disturbed, and the next
suite begins. The last lines count, and the exit code is 0 if every bad count is 0.
"""

import argparse
import contextlib
import fcntl
import json
import os
import random
import resource
import shutil
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
MOST_DRIVERS = 60  # of a suite; one that takes more will never be complete


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


def start_driver(root, *more, env=None):
    """Start a driver in a session of its own."""
    options = ["--jobs", "2", "--device", "cpu", "--no-notebook", "--results-root", str(root)]
    return subprocess.Popen(
        [sys.executable, str(TINY), "run", "tiny", *options, *more],
        env={**os.environ, "PYTHONPATH": str(TINY.parent.parent), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def start_drivers(root, rng, env=None):
    """Start one driver, at times two."""
    n_drivers = rng.choices([1, 2], [4, 1])[0]
    return [start_driver(root, env=env) for _ in range(n_drivers)]


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


class Watch:
    """Remembers every record that ever existed; one that changes was written twice."""

    def __init__(self):
        self.seen = {}  # (root, name): inode and bytes
        self.damaged = set()  # bytes of records that were damaged on purpose
        self.doubled = 0
        self.lost = 0
        self.odd = 0  # drivers that ended in an unexpected way
        self.odd_output = None  # of the first of them

    def look(self, root):
        """Compare the records below a folder with what they were."""
        for name, path in records(root).items():
            with contextlib.suppress(FileNotFoundError):  # a damaged one, which is moved away
                now = path.stat().st_ino, path.read_bytes()
                if now[1] in self.damaged:
                    continue
                before = self.seen.get((root, name), now)
                self.doubled += before != now
                self.seen[root, name] = now
        self.lost = sum(not Path(root, name).exists() for root, name in self.seen)

    def is_complete(self, root):
        """Whether all runs of a suite have a record."""
        self.look(root)
        return sum(seen_root == root for seen_root, _ in self.seen) == RUNS

    def check_end(self, driver, fatal=(signal.SIGKILL,)):
        """Wait for the end of a driver and all its processes, and look at how it ended."""
        expected = {0, 1, 130, 143, *(-number for number in fatal)}
        try:
            output, _ = driver.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(driver.pid, signal.SIGKILL)
            output, _ = driver.communicate()
            expected = {}  # it hung
        failed = [
            line
            for line in output.splitlines()
            if ": failed" in line and "its process died" not in line
        ]
        if driver.returncode not in expected or "Traceback" in output or failed:
            self.odd += 1
            if self.odd_output is None:
                self.odd_output = f"{output}\nexit code {driver.returncode}"


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


# kills at random


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
    return [what] if victims else []


# storms of signals

SUSPENDING = ["SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"]
SIGNALS = """SIGINT SIGTERM SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGPIPE SIGALRM SIGVTALRM SIGPROF
SIGCHLD SIGWINCH SIGURG SIGIO SIGCONT SIGXCPU SIGXFSZ SIGTRAP SIGABRT SIGBUS SIGSEGV"""
SIGNALS = [name for name in SUSPENDING + SIGNALS.split() if hasattr(signal, name)]


def send_signal_burst(driver, rng):
    """Send up to five signals, and wake up what they have suspended; returns their names.

    Each hits the driver, its forkserver, a worker, or all of them and whatever else is in their
    session.
    """
    sent = []
    for name in rng.sample(SIGNALS, rng.randint(1, 5)):
        forkservers, workers = family(driver)
        who = rng.choices(["driver", "nursery", "worker", "all"], [30, 10, 45, 15])[0]
        victims = {
            "driver": [driver],
            "nursery": forkservers,
            "worker": rng.sample(workers, min(len(workers), 1)),
            "all": [driver],  # whose session it is
        }[who]
        send = os.killpg if who == "all" else os.kill
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                send(victim.pid, getattr(signal, name))
                sent.append(name)
        time.sleep(rng.choice([0, 0, 0.01, 0.1]))
    time.sleep(rng.uniform(0, 0.3))
    if not set(sent).isdisjoint(SUSPENDING):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGCONT)
    return sent


def complete_under_attack(root, rng, most, counts, watch, attack, fatal):
    """Drive one suite to its end under attacks, until there have been `most`.

    An attack hits processes of a driver and returns the names of what it did, which are counted.
    `fatal` are the signals that a driver may die of.
    """
    for _ in range(MOST_DRIVERS):
        drivers = start_drivers(root, rng)
        while any(map(is_running, drivers)) and counts.total() < most:
            wait_for_epochs(root, rng, drivers)
            alive = [driver for driver in drivers if is_running(driver)]
            if alive and Path(root).exists():  # the command has begun
                counts.update(attack(rng.choice(alive), rng))
            watch.look(root)
        for driver in drivers:
            watch.check_end(driver, fatal)
        if watch.is_complete(root):
            return


# kills at system calls

WORKER_CALLS = """lock of a lock
replace of a checkpoint
fsync of a record
replace of a record
unlink of a checkpoint
unlock of a lock""".splitlines()
OF_A_DAMAGED_RECORD = ["rename of a damaged record"]
OF_A_DAMAGED_CHECKPOINT = ["rename of a damaged checkpoint", "unlink of a half-written file"]
DRIVER_CALLS = """lock of a lock
unlink of a checkpoint
unlink of a half-written file
unlock of a lock""".splitlines()

# a process that dies here leaves nothing to do at most other places
LAST = """worker after replace of a record
worker before unlink of a checkpoint
worker after unlink of a checkpoint
driver after unlink of a half-written file
driver before unlock of a lock
driver after unlock of a lock""".splitlines()


def all_places():
    """Every place where a kill can be put, as `kill_at` names them."""
    worker_calls = WORKER_CALLS + OF_A_DAMAGED_RECORD + OF_A_DAMAGED_CHECKPOINT
    calls = [("worker", call) for call in worker_calls] + [("driver", c) for c in DRIVER_CALLS]
    return [f"{who} {when} {call}" for who, call in calls for when in ("before", "after")]


class Places:
    """Deals places so that each of them gets its turn."""

    def __init__(self, rng):
        self.rng = rng
        self.deck = []
        self.missed = Counter()  # by place: kills that were planned and not reached
        self.reached = Counter()  # by place: kills that happened
        self.seen = set()  # places that any process has reached

    def plan_kills(self, runs, most):
        """Kills for one suite, on two occasions for a run at most.

        `runs` are the name of the finished run, of that with a damaged record, of that with a
        damaged checkpoint, and of the others.
        """
        kills = []
        if len(self.deck) < len(all_places()):
            self.deck += self.rng.sample(all_places(), len(all_places()))
        for place in list(self.deck):
            free = [run for run in candidates(place, runs) if has_room(run, place, kills)]
            if free and len(kills) < most:
                count = self.rng.randint(1, 20) if "replace of a checkpoint" in place else 1
                kills.append(dict(place=place, run=self.rng.choice(free), count=count))
                self.deck.remove(place)
        return kills

    def take_back(self, kills, folder):
        """Note what a suite has reached; places that were not reached come again.

        Returns the places of the kills that happened.
        """
        self.seen |= {path.name for path in Path(folder, "places").iterdir()}
        happened = []
        for number, kill in enumerate(kills):
            if Path(folder, f"{number}.done").exists():
                happened.append(kill["place"])
            else:
                self.missed[kill["place"]] += 1
                self.deck.insert(0, kill["place"])
        self.reached.update(happened)
        return happened

    def unreached(self):
        """Places to which no process has come in several suites."""
        return {place for place, n in self.missed.items() if n > 3 and not self.reached[place]}


def candidates(place, runs):
    """The runs that come to a place, see `Places.plan_kills`."""
    finished, damaged_record, damaged_checkpoint, *_ = runs
    who, _, call = place.split(" ", 2)
    if who == "driver":
        return [finished]
    if call in OF_A_DAMAGED_RECORD:
        return [damaged_record]
    if call in OF_A_DAMAGED_CHECKPOINT:
        return [damaged_checkpoint]
    return runs[1:]


def has_room(run, place, kills):
    """Whether a run may have one more kill: a third try of a run that dies again is its last."""
    places = [kill["place"] for kill in kills if kill["run"] == run]
    is_last = place in LAST and not set(places).isdisjoint(LAST)
    return len(places) < 2 and not is_last


def run_of(name):
    """The run of a record, as `kill_at` names it."""
    return str(Path(*Path(name).with_suffix("").parts[-2:]))


def prepare_damaged_suite(root, names, calm, watch):
    """Begin a suite with one finished run and leftovers, a damaged record and a damaged checkpoint.

    `names` are those of its records, and `calm` is the folder of the undisturbed ones.
    """
    finished, damaged_record, damaged_checkpoint, *_ = [Path(name) for name in names]
    root = Path(root)
    runs = root.parent / ".runs"
    for name in (finished, damaged_record, damaged_checkpoint):
        Path(root, name).parent.mkdir(parents=True, exist_ok=True)
        Path(runs, name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(calm, finished), root / finished)
    cut = Path(calm, damaged_record).read_bytes()[:300]
    watch.damaged.add(cut)
    Path(root, damaged_record).write_bytes(cut)
    for name in (finished, damaged_checkpoint):
        checkpoint = Path(runs, name).with_suffix(".safetensors")
        checkpoint.write_bytes(b"no checkpoint")
        checkpoint.with_name(f".{checkpoint.name}.0badf00d.tmp").write_bytes(b"half")


def complete_under_placed_kills(root, rng, most, counts, watch, places, calm):
    """Drive one suite, damaged at its beginning, to its end under kills at planned places."""
    names = list(records(calm))
    rng.shuffle(names)
    prepare_damaged_suite(root, names, calm, watch)
    kills = places.plan_kills([run_of(name) for name in names], most - counts.total())
    folder = Path(root).parent / "kills"
    Path(folder, "places").mkdir(parents=True)
    Path(folder, "plan.json").write_text(json.dumps(kills))
    for _ in range(MOST_DRIVERS):
        drivers = start_drivers(root, rng, dict(ZEROINIT_KILLS=str(folder)))
        while any(map(is_running, drivers)):
            watch.look(root)
            time.sleep(0.02)
        for driver in drivers:
            watch.check_end(driver)
        if watch.is_complete(root):
            break
    counts.update(places.take_back(kills, folder))


# what is left of a suite


def is_held(lock):
    """Whether a process holds a lock file."""
    with open(lock, "rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def count_leftovers(root, damaged):
    """What a complete suite has left behind after one more run of the command, by kind.

    `damaged` is how many files were damaged on purpose, which are set aside.
    """
    driver = start_driver(root)
    output, _ = driver.communicate(timeout=300)
    folder = Path(root).parent
    aside = [path for path in folder.glob(".runs/aside/**/*") if path.is_file()]
    return Counter(
        {
            "half-written files": len(list(folder.rglob("*.tmp"))),
            "checkpoints": len(set(folder.rglob("*.safetensors")) - set(aside)),
            "locks held": sum(map(is_held, folder.rglob("*.lock"))),
            "good files set aside": abs(len(aside) - damaged),
            "later runs hindered": int(driver.returncode != 0 or "0 to do" not in output),
        }
    )


def undisturbed_numbers(root):
    """The numbers of a suite that nothing disturbs, by record."""
    driver = start_driver(root)
    assert driver.wait() == 0, driver.stdout.read()
    return {name: numbers(path) for name, path in records(root).items()}


def readable_numbers(path):
    """The numbers of a record; None if it is none."""
    try:
        return numbers(path)
    except (ValueError, KeyError):
        return None


def main(kills=200, seed=0, how="random"):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    rng = random.Random(seed)
    counts = Counter()  # kills or signals by who was killed, place, or name
    what = "signals" if how == "signals" else "kills"
    watch = Watch()
    places = Places(rng)
    left = Counter()
    suites = 0
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        calm = f"{folder}/calm/results"
        expected = undisturbed_numbers(calm)
        while suites == 0 or (counts.total() < kills and not places.unreached()):
            root = f"{folder}/suite{suites}/results"
            if how == "placed":
                complete_under_placed_kills(root, rng, kills, counts, watch, places, calm)
            elif how == "signals":
                fatal = [getattr(signal, name) for name in SIGNALS]
                complete_under_attack(root, rng, kills, counts, watch, send_signal_burst, fatal)
            else:
                fatal = [signal.SIGKILL]
                complete_under_attack(root, rng, kills, counts, watch, kill_something, fatal)
            left.update(count_leftovers(root, damaged=2 if how == "placed" else 0))
            watch.look(root)
            found = records(root).items()
            different += sum(expected[n] != readable_numbers(path) for n, path in found)
            suites += 1
            print(f"{counts.total()} {what}, {suites} suites whole", flush=True)
        trained = sum(count_epochs(f"{folder}/suite{k}/results") for k in range(suites))

    runs = RUNS * suites
    lost = watch.lost + runs - len(watch.seen)
    for name, count in sorted(counts.items()):
        print(f"{count:6} {name}")
    left_text = ", ".join(f"{count} {name}" for name, count in left.items())
    print(f"{suites} suites, {len(watch.seen)} records; {trained} epochs for {runs * EPOCHS}")
    print(f"left behind: {left_text}")
    unknown = places.seen - set(all_places())
    never = places.unreached()
    if unknown or never:
        print(f"places that are not in the list: {sorted(unknown)}; never reached: {sorted(never)}")
    print(
        f"{counts.total()} {what}: {lost} records lost, {watch.doubled} doubled, "
        f"{different} different"
    )
    if watch.odd:
        print(f"{watch.odd} drivers ended oddly; the first printed:\n{watch.odd_output}")
    bad_left = left.total()
    return lost + watch.doubled + different + watch.odd + bad_left + len(unknown) + len(never)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kills", type=int, nargs="?", default=200, help="how many, or signals")
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--how", choices=["random", "placed", "signals"], default="random")
    args = parser.parse_args()
    sys.exit(min(main(args.kills, args.seed, args.how), 1))
