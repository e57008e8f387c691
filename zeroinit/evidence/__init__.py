"Claims as data, the tests, and what the records say about each claim."

from zeroinit.basics.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "CLAIMS": "claims",
        "PREDICTIONS": "claims",
        "evidence_cells": "cells",
        "claims_table": "cells",
        "prediction_cells": "predictions",
        "agreement": "replication",
    },
)
