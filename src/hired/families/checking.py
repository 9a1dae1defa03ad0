"""What any configuration must hold for its model to be built and its pictures to be laid out."""

import math
from collections.abc import Mapping
from typing import Any

from hired.errors import ModelLoadError

__all__ = ["check_config"]

_COUNTS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "num_channels",
    "in_channels",
    "depth",
    "num_heads",
    "embed_dim",
    "vocab_size",
    "image_size",
    "patch_size",
    "spatial_merge_size",
    "temporal_patch_size",
    "window_size",
    "scale_factor",
    "downsample_factor",
    "mm_tokens_per_image",
)
"""Whole numbers above 0, or lists of them, wherever a part of a configuration has them."""
_RATIOS = ("downsample_ratio", "pixel_shuffle_ratio")
"""Numbers above 0 and at most 1."""
_MOST_LAYERS = 10_000
_MOST = 2**31
_MOST_PIXELS = 2**28
"""Of one grid. More is no picture but a mistake, and building what it tells of takes all memory."""


def check_config(config: Any, name: str) -> None:
    """Refuses a configuration whose sizes no model can have, before anything is built from it.

    Args:
        config: of the whole model, or what its `config.json` holds.
        name: what errors call the checkpoint.

    Raises:
        ModelLoadError: a size that is 0, negative, not a number or beyond reason.
    """
    for where, part in _parts(config):
        for key in _COUNTS:
            value = _get(part, key)
            most = _MOST_LAYERS if key in ("num_hidden_layers", "depth") else _MOST
            if value is not None and not _counts(value, most):
                raise _wrong(name, where + key, value, "a whole number above 0")
        for key in _RATIOS:
            value = _get(part, key)
            if value is not None and not (_number(value) and 0 < value <= 1):
                raise _wrong(name, where + key, value, "a number above 0 and at most 1")
        patch, image = _get(part, "patch_size"), _get(part, "image_size")
        if isinstance(patch, int) and isinstance(image, int) and patch > image:
            raise _wrong(name, f"{where}patch_size", patch, f"at most image_size, {image}")
    points = _get(config, "image_grid_pinpoints")
    if points is not None and not _pinpoints(points):
        raise _wrong(name, "image_grid_pinpoints", points, "a list of (height, width) in pixels, each above 0")


def _parts(config: Any) -> list[tuple[str, Any]]:
    """The configuration and those of encoder and LLM, with the start of their keys' names."""
    found = [("", config)]
    for key in ("vision_config", "text_config"):
        part = _get(config, key)
        if part is not None:
            found.append((f"{key}.", part))
    return found


def _get(part: Any, key: str) -> Any:
    return part.get(key) if isinstance(part, Mapping) else getattr(part, key, None)


def _counts(value: Any, most: int) -> bool:
    values = value if isinstance(value, list | tuple) else [value]
    return bool(values) and all(isinstance(v, int) and not isinstance(v, bool) and 0 < v <= most for v in values)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _pinpoints(points: Any) -> bool:
    if not isinstance(points, list | tuple) or not points:
        return False
    pairs = [point for point in points if isinstance(point, list | tuple) and len(point) == 2 and _counts(point, _MOST)]
    return len(pairs) == len(points) and all(height * width <= _MOST_PIXELS for height, width in pairs)


def _wrong(name: str, key: str, value: Any, wanted: str) -> ModelLoadError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return ModelLoadError(f"{name!r} cannot be: its config.json says {key} {shown}, which must be {wanted}")
