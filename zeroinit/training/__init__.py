"The training loop, the ways to execute a step, several seeds at once."

from zeroinit.basics.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "fit": "loop",
        "fit_all": "loop",
        "evaluate": "loop",
        "evaluate_in_other_mode": "loop",
        "Recipe": "options",
        "SPEEDS": "options",
        "Adam": "optimizers",
        "CheckpointMismatch": "checkpoints",
    },
)
