"Experiments, the records they leave, and the suites that belong together."

from zeroinit.basics.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Experiment": "config",
        "read": "frames",
        "records": "records",
        "resolve": "resolve",
        "run": "runner",
        "request": "runner",
        "SUITES": "suites",
    },
)
