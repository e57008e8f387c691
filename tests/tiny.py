"""The `zeroinit` command with one more suite, small enough to be killed often: python tests/tiny.py run tiny --results-root DIR"""
import sys

from zeroinit.command import main
from zeroinit.protocols import filled
from zeroinit.suites import SUITES


def tiny():
    "Six runs of the digits, a second each."
    return [(filled(dataset="digits", init=init, epochs=40, probe_steps=2), range(3)) for init in ("bias_normal", "zero")]


tiny.claims = ""
SUITES["tiny"] = tiny

if __name__ == "__main__":
    sys.exit(main())
