"""Partitions that look the same need encoding once."""

import torch
from torch import Tensor

_LOOKED_AT = 256
"""Numbers of each partition by which those that cannot be alike are told apart."""


def distinct(pixels: Tensor) -> tuple[list[int], list[int]]:
    """Finds identical partitions, such as blank paper or padding.

    Args:
        pixels: (n, channels, height, width).

    Returns:
        (indices of the partitions that differ, in order; for each of the n partitions its place among those).
        Waits for the device.
    """
    flat = pixels.flatten(1)
    marks = flat[:, :: max(flat.shape[1] // _LOOKED_AT, 1)].tolist() if len(flat) > 1 else [[]]
    by_mark: dict[tuple[float, ...], list[int]] = {}
    unique: list[int] = []
    place: list[int] = []
    for index, mark in enumerate(map(tuple, marks)):
        alike = by_mark.setdefault(mark, [])
        # Equal numbers at a few places only suggest equality.
        twin = next((other for other in alike if torch.equal(flat[unique[other]], flat[index])), None)
        if twin is None:
            twin = len(unique)
            alike.append(twin)
            unique.append(index)
        place.append(twin)
    return unique, place
