"""How a page lies on the tiles that LLaVA-NeXT cuts it into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator

Box = tuple[float, float, float, float]

TILE = 96
"""Side of a tile, in pixels: the encoder's input size."""
GRIDS: tuple[tuple[int, int], ...] = (
    (1, 1),
    (1, 2),
    (2, 1),
    (2, 2),
    (1, 3),
    (3, 1),
    (1, 4),
    (4, 1),
)
"""Tile grids, (rows, columns), in the order of the image processor's pinpoints."""
GRID_SHARES = (0.04, 0.15, 0.15, 0.34, 0.1, 0.1, 0.06, 0.06)
"""How often each grid of `GRIDS` is drawn."""


def best_grid(width: int, height: int) -> tuple[int, int]:
    """The (rows, columns) of `GRIDS` that LLaVA-NeXT cuts a picture of this size into."""
    best, best_fit = GRIDS[0], (-1, 0)
    for rows, columns in GRIDS:
        full_w, full_h = columns * TILE, rows * TILE
        scale = min(full_w / width, full_h / height)
        used = min(int(width * scale) * int(height * scale), width * height)
        candidate = (used, used - full_w * full_h)
        if candidate > best_fit or best_fit[0] < 0:
            best, best_fit = (rows, columns), candidate
    return best


def grid_mapping(width: int, height: int, grid: tuple[int, int]) -> tuple[float, int, int]:
    """How a picture lies on its tile canvas: (scale, left padding, top padding), in tile pixels."""
    full_w, full_h = grid[1] * TILE, grid[0] * TILE
    scale_w, scale_h = full_w / width, full_h / height
    if scale_w < scale_h:
        new_w, new_h = full_w, min(int(np.ceil(height * scale_w)), full_h)
    else:
        new_h, new_w = full_h, min(int(np.ceil(width * scale_h)), full_w)
    return min(scale_w, scale_h), (full_w - new_w) // 2, (full_h - new_h) // 2


def shape(rng: Generator, grid: tuple[int, int]) -> tuple[int, int]:
    """Draw a page size (width, height) that falls into a grid."""
    rows, columns = grid
    while True:
        zoom = rng.uniform(1.5, 2.5) if rows * columns > 1 else rng.uniform(0.85, 1.0)
        short = rng.uniform(0.7, 1.0) if rng.random() < 0.8 else 1.0
        sides = (1.0, short) if rng.random() < 0.5 else (short, 1.0)
        width = round(columns * TILE * zoom * sides[0])
        height = round(rows * TILE * zoom * sides[1])
        if best_grid(width, height) == (rows, columns):
            return width, height


def crosses(box: Box, fit: float, left: int, top: int) -> bool:
    """Whether a tile border cuts a box (in page pixels), or nearly touches it."""
    x0, x1 = box[0] * fit + left - 1, box[2] * fit + left + 1
    y0, y1 = box[1] * fit + top - 1, box[3] * fit + top + 1
    return int(x0 // TILE) != int(x1 // TILE) or int(y0 // TILE) != int(y1 // TILE)
