"Suites of experiments, on this machine, by papermill or on a Ray cluster."

from zeroinit.basics.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "run_suite": "driver",
        "plan_suite": "driver",
        "suite_status": "driver",
    },
)
