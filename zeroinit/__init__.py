"Networks that start from zero weights: the library behind the notebooks in nbs/."

__version__ = "0.2.0"

from zeroinit.basics.lazy import lazy_exports
from zeroinit.basics.threads import limit_spinning

limit_spinning()  # before torch is imported

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "load": "data.datasets",
        "build": "models.networks",
        "initialize": "schemes.initialization",
        "diagnose": "diagnostics.diagnosis",
        "fit": "training.loop",
        "run": "experiments.runner",
        "read": "experiments.frames",
        "Refused": "basics.errors",
    },
    subpackages=(
        "basics",
        "data",
        "diagnostics",
        "evidence",
        "experiments",
        "figures",
        "models",
        "publish",
        "schemes",
        "sweep",
        "training",
    ),
)
