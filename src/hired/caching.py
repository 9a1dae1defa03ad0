"""The key-value cache by either of its names: transformers 5.24 renamed `past_key_values` to `cache`."""

import inspect
from collections.abc import Mapping
from typing import Any

NEW, OLD = "cache", "past_key_values"


def cache_argument(model: Any) -> str:
    """What `model.forward` and `model.generate` call their cache."""
    return NEW if NEW in inspect.signature(type(model).forward).parameters else OLD


def cache_of(output: Any) -> Any:
    """The cache in an output of `model.forward` or `model.generate`, None where there is none."""
    return getattr(output, NEW) if hasattr(output, NEW) else getattr(output, OLD, None)


def cache_in(inputs: Mapping[str, Any]) -> Any:
    """The cache among the arguments of `model.forward` or `model.generate`, None where there is none."""
    return next((inputs[name] for name in (NEW, OLD) if inputs.get(name) is not None), None)
