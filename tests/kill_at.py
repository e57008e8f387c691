"""Kill this process at a system call that a plan names: just before it, or just after it.

`kills.py` writes the plan into the folder $ZEROINIT_KILLS, and `tiny.py` loads this module into the
driver and into its workers. Nothing but that variable leads here.
"""

import fcntl
import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")
KINDS = {".json": "record", ".safetensors": "checkpoint", ".lock": "lock"}


def watch_calls(who):
    """From now on, count the calls of this process (a driver or a worker) and die as planned."""
    calls = Calls(Path(os.environ["ZEROINIT_KILLS"]), who)
    for name in ("fsync", "unlink"):
        setattr(os, name, calls.wrapped(getattr(os, name), name, file_at=0))
    for name in ("replace", "rename"):  # from a temporary file; and of a damaged file, to another
        setattr(os, name, calls.wrapped(getattr(os, name), name, file_at=int(name == "replace")))
    take_or_release = fcntl.flock
    take = calls.wrapped(take_or_release, "lock", file_at=0)
    release = calls.wrapped(take_or_release, "unlock", file_at=0)

    def flock(file, operation):
        return release(file, operation) if operation & fcntl.LOCK_UN else take(file, operation)

    fcntl.flock = flock


def describe_file(call, file):
    """What a file is and which run it belongs to; None for a file of no run."""
    file = file.fileno() if hasattr(file, "fileno") else file
    if not isinstance(file, int):
        path = Path(os.fsdecode(file))
    elif os.path.exists(f"/proc/self/fd/{file}"):
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
    else:
        return None
    match = TEMPORARY.fullmatch(path.name)
    if match:
        path = path.with_name(match[1])
    kind = KINDS.get(path.suffix)
    if match and call == "unlink":
        kind = "half-written file"
    if call == "rename":
        kind = f"damaged {kind}"
    return kind and (kind, f"{path.parent.name}/{path.stem}")


class Calls:
    """Counts calls by place and run; the one that a kill of the plan asks for is the last."""

    def __init__(self, folder, who):
        self.folder = folder
        self.who = who
        self.plan = json.loads((folder / "plan.json").read_text())
        self.counts = Counter()

    def wrapped(self, function, call, file_at):
        """A function that dies before or after it does what another does."""

        def wrapper(*args, **kwargs):
            file = describe_file(call, args[file_at])
            if file:
                self.reach("before", call, *file)
            result = function(*args, **kwargs)
            if file:
                self.reach("after", call, *file)
            return result

        return wrapper

    def reach(self, when, call, kind, run):
        """Note a place, and die if it is this place's turn. A kill of the plan happens once."""
        place = f"{self.who} {when} {call} of a {kind}"
        (self.folder / "places" / place).touch()
        self.counts[place, run] += 1
        for number, kill in enumerate(self.plan):
            is_due = self.counts[place, run] >= kill["count"]
            if (kill["place"], kill["run"]) == (place, run) and is_due:
                try:
                    os.open(self.folder / f"{number}.done", os.O_CREAT | os.O_EXCL)
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
