"""What a caller gives as `images=`: pictures, or their sizes."""

from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor

from hired.errors import InputsError
from hired.families.base import Size


def sizes_of(images: Any) -> list[Size]:
    """(width, height) of every picture.

    Args:
        images: PIL pictures, arrays or tensors of pixels (channels first or last), or (width, height) pairs; one, or a
            list of them, nested as the processor takes them. Whole numbers in an array of shape (2,) or (n, 2) are
            pairs, not a picture of two pixels' width.

    Raises:
        InputsError: anything else, or a picture without area.
    """
    return [_size(image) for image in _flatten(images)]


def _flatten(images: Any) -> list[Any]:
    if isinstance(images, Tensor | np.ndarray) and images.ndim in (1, 2) and images.shape[-1] == 2 and _whole(images):
        pairs: list[Any] = images.reshape(-1, 2).tolist()
        return [tuple(pair) for pair in pairs]
    if isinstance(images, list | tuple):
        if _is_size(images):
            return [tuple(images)]
        return [leaf for image in images for leaf in _flatten(image)]
    return [images]


def _whole(values: Any) -> bool:
    """Whether an array or tensor holds whole numbers, and not bytes, which are grey pixels."""
    name = str(values.dtype).rsplit(".", 1)[-1]
    return "int" in name and not name.endswith("int8")


def _is_size(value: Any) -> bool:
    return len(value) == 2 and all(isinstance(v, Integral) and not isinstance(v, bool) for v in value)


def _size(image: Any) -> Size:
    """(width, height) of a PIL picture, an array (channels first or last), or such a pair itself."""
    if isinstance(image, tuple):
        width, height = image
    elif isinstance(getattr(image, "size", None), tuple):
        width, height = image.size
    elif len(shape := tuple(getattr(image, "shape", ()))) in (2, 3):
        channels_first = len(shape) == 3 and shape[0] in (1, 3, 4)
        height, width = shape[1:] if channels_first else shape[:2]
    else:
        raise InputsError(f"images= must hold pictures or (width, height) pairs, got {type(image).__name__}")
    if width < 1 or height < 1:
        raise InputsError(f"images= holds a picture of {width} x {height} pixels")
    return int(width), int(height)
