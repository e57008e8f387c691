"Experiments, the records they leave, and the suites that belong together."

import sys
from types import ModuleType

from zeroinit.basics.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Experiment": "config",
        "OPTIONS": "options",
        "SUITES": "suites",
        "fill_in": "protocols",
        "of_suite": "suites",
        "read": "frames",
        "records": "records",
        "request": "requests",
        "resolve": "resolve",
        "run": "runner",
        "suite": "suites",
        "summary": "frames",
        "to_frame": "frames",
        "verify": "verification",
    },
)


class _ExperimentsPackage(ModuleType):
    """The package, in which `records` and `resolve` are the functions of these names.

    Python stores every submodule in its package after importing it. The submodules `records` and
    `resolve` would hide the functions that they define.
    """

    def __setattr__(self, name, value):
        if name in ("records", "resolve") and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _ExperimentsPackage
