"Claims as data, the tests, and the verdicts."

from zeroinit.basics.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "CLAIMS": "claims",
        "verdicts": "verdicts",
        "effects": "verdicts",
    },
)
