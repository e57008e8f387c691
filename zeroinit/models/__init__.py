"Every architecture of both works, and doors to torchvision and timm."

from zeroinit.basics.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "build": "networks",
        "MODELS": "networks",
    },
)
