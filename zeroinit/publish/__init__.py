"README, site, explorer, exports and the command line."

from zeroinit.basics.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "report": "report",
        "explorer": "explorer",
        "main": "cli",
    },
)
