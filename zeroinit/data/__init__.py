"Data sets as uint8 tensors, augmentation and batches."

from zeroinit.basics.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "load": "datasets",
        "DATASETS": "datasets",
        "Images": "datasets",
        "holdout": "datasets",
        "Batches": "batches",
        "augmentation": "batches",
    },
)
