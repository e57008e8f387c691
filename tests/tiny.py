"""The `zeroinit` command with small suites that are killed often.

python tests/tiny.py run tiny --results-root DIR
"""

import os
import sys

if "ZEROINIT_KILLS" in os.environ:  # see kills.py
    from kill_at import watch_calls

    watch_calls("driver" if __name__ == "__main__" else "worker")

from zeroinit.experiments.protocols import fill_in
from zeroinit.experiments.suites import SUITES
from zeroinit.publish.cli import main


def tiny():
    "Six runs of the digits, a second each."
    settings = dict(dataset="digits", epochs=40, probe_steps=2)
    return [(fill_in(init=init, **settings), range(3)) for init in ("bias_normal", "zero")]


def grown():
    "Two runs on the data set that $ZEROINIT_DATA calls MNIST."
    settings = dict(dataset="mnist", epochs=100, train_size=400, batch_size=40, probe_steps=2)
    return [(fill_in(init=init, **settings), range(1)) for init in ("zero", "bias_normal")]


for suite in (tiny, grown):
    suite.claims = suite.short_of = ""
    SUITES[suite.__name__] = suite

if __name__ == "__main__":
    sys.exit(main())
