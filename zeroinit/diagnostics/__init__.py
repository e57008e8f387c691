"What is watched while a network trains, and whether it will learn."

from zeroinit.basics.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "diagnose": "diagnosis",
        "Diagnosis": "diagnosis",
        "Gradients": "probes",
        "Symmetry": "probes",
        "Wake": "probes",
    },
)
