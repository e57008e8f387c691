"What every other package stands on: errors, files and lazy imports."

from zeroinit.basics.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Refused": "errors",
        "Unwritable": "errors",
        "pick": "errors",
        "root": "files",
        "at_root": "files",
        "write_atomically": "files",
        "ensure_writable": "files",
        "Table": "tables",
    },
)
