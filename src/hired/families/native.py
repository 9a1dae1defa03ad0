"""What families share whose encoder sees the picture at its own resolution: one partition, all images in one sequence.

The whole picture is one partition, not a grid of windows. Partitions are there because the softmax of a tile ranks
tokens inside that tile only, so that a budget has to be divided before tokens can be chosen. Here all patches of a
picture share one softmax: what they receive compares directly, and the best tokens of the whole picture are the best
division of its budget too. A grid of windows would only forbid some of them.
"""

import torch
from torch import Tensor

from hired.core.layout import STRUCTURE, Layout
from hired.families.base import Size

Grid = tuple[int, int]
"""(rows, columns) of an image's visual tokens."""


def native_layout(grid: Grid, size: Size | None, shown: Size) -> Layout:
    """The layout of a picture that is one partition, its tokens row by row.

    Args:
        grid: (rows, columns) of its visual tokens.
        size: the picture as (width, height), None if unknown.
        shown: (width, height) in pixels of the encoder's input, which boxes are in where the picture is unknown.
    """
    count = grid[0] * grid[1]
    width, height = size or shown
    return Layout.build(
        partition=torch.zeros(count, dtype=torch.int64),
        cell=torch.arange(count),
        line=torch.full((count,), STRUCTURE),
        cells=grid,
        boxes=((0.0, 0.0, float(width), float(height)),),
        size=size,
    )


def by_picture(rows: list[Tensor], patches: list[int]) -> list[Tensor]:
    """What a tap read of pictures that follow each other in one sequence, (heads, patches) of each.

    Args:
        rows: (1, heads, patches) of every call of the layer, be it one for each picture or one for all.
        patches: encoder patches of every picture.
    """
    return list(torch.split(torch.cat([each[0] for each in rows], -1), patches, -1))
