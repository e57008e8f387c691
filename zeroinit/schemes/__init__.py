"Every initialization scheme, and `initialize`, which applies one to any model."

import sys
from types import ModuleType

from zeroinit.basics.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "initialize": "initialization",
        "SCHEMES": "fills",
        "scheme": "fills",
    },
)


class _SchemesPackage(ModuleType):
    "The package `zeroinit.schemes`. Called, it lists the schemes: `zeroinit.schemes()`."

    def __call__(self):
        from zeroinit.schemes.initialization import schemes

        return schemes()


sys.modules[__name__].__class__ = _SchemesPackage
