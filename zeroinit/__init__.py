"Networks that start from zero weights: the library behind the notebooks in nbs/."
__version__ = "0.2.0"

# torch loads when one of these is first used, so that `import zeroinit` itself costs nothing
_HOME = {"initialize": "inits", "schemes": "inits", "diagnose": "doctor"}


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'zeroinit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"zeroinit.{_HOME[name]}"), name)


def __dir__():
    return [*globals(), *_HOME]
