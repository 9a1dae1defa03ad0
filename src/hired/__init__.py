"""HiRED: token dropping for high-resolution vision-language models under a fixed budget.

    inputs = hired.reduce(model, inputs, budget=0.2)    # between `processor(...)` and `model.generate(**inputs)`

Nothing heavy is imported until it is used.
"""

from typing import TYPE_CHECKING, Any

from hired._version import __version__
from hired.errors import (
    BudgetError,
    HiredError,
    ImageError,
    InputsError,
    MissingDependencyError,
    ModelLoadError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from hired import reference
    from hired.agreeing.run import agreement
    from hired.enabling import Enabled, enable
    from hired.reduction import ImageSelection, ReducedInputs, Token, reduce
    from hired.tiny import load_tiny

__all__ = [
    "BudgetError",
    "Enabled",
    "HiredError",
    "ImageError",
    "ImageSelection",
    "InputsError",
    "MissingDependencyError",
    "ModelLoadError",
    "ReducedInputs",
    "Token",
    "UnsupportedModelError",
    "__version__",
    "agreement",
    "enable",
    "load_tiny",
    "reduce",
    "reference",
]

_LAZY = {
    "Enabled": "hired.enabling",
    "ImageSelection": "hired.reduction",
    "ReducedInputs": "hired.reduction",
    "Token": "hired.reduction",
    "agreement": "hired.agreeing.run",
    "enable": "hired.enabling",
    "load_tiny": "hired.tiny",
    "reduce": "hired.reduction",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name == "reference":
        return import_module("hired.reference")
    raise AttributeError(f"module 'hired' has no attribute {name!r}")
