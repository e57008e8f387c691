"Every initialization scheme, and `initialize`, which applies one to any model."

import sys
from types import ModuleType

from zeroinit.basics.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "initialize": "initialization",
        "SCHEMES": "initialization",  # whose import registers the library's schemes
        "scheme": "fills",
    },
)


class _SchemesPackage(ModuleType):
    "The package `zeroinit.schemes`, which can also be called: `zeroinit.schemes()`."

    def __call__(self):
        "All schemes by name, with what each sets and its source."
        from zeroinit.schemes.initialization import schemes

        return schemes()


# `zeroinit.schemes` is the name of a package and, for users, of a function
sys.modules[__name__].__class__ = _SchemesPackage
