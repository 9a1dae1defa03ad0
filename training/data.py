"""Pages as training data: partitions cut as the image processor cuts them, and per-patch labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hired.forms import KEYS, TILE, Page, best_grid, grid_mapping, page

PATCH = 8
"""Side of an encoder patch, in tile pixels."""
SIDE = TILE // PATCH
"""Patches along a side of a partition."""
SLOTS = 4
"""Most digits a value can have."""
IGNORE = -100
"""Label that no loss counts."""


@dataclass
class Partition:
    """One encoder input and what a patch of it shows.

    Attributes:
        pixels: (96, 96, 3) uint8.
        key: (12, 12) index into `KEYS` of the line that touches the patch; -1: none.
        slots: (4, 12, 12) digit number i of that line's value, plus one, where most of the digit's
            share of the patch lies; 0: not here; `IGNORE`: hardly.
        whole: 1.0 for a tile, 0.0 for the shrunk full image.
    """

    pixels: np.ndarray
    key: np.ndarray
    slots: np.ndarray
    whole: float


def cut(image: Image.Image) -> np.ndarray:
    """Partitions of a picture, full image first: (1 + tiles, 96, 96, 3) uint8.

    Equal to what `LlavaNextImageProcessor` makes before it rescales and normalises.
    """
    rows, columns = grid = best_grid(*image.size)
    _, left, top = grid_mapping(*image.size, grid)
    new = (columns * TILE - 2 * left, rows * TILE - 2 * top)
    full_w, full_h = columns * TILE, rows * TILE
    scale_w, scale_h = full_w / image.width, full_h / image.height
    if scale_w < scale_h:
        new = (full_w, min(int(np.ceil(image.height * scale_w)), full_h))
    else:
        new = (min(int(np.ceil(image.width * scale_h)), full_w), full_h)
    canvas = np.zeros((full_h, full_w, 3), np.uint8)
    canvas[top : top + new[1], left : left + new[0]] = image.resize(new, Image.Resampling.BICUBIC)
    tiles = canvas.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
    small = np.asarray(image.resize((TILE, TILE), Image.Resampling.BICUBIC))
    return np.concatenate([small[None], tiles])


def partitions(p: Page) -> list[Partition]:
    """Every partition of a page with its labels, full image first."""
    rows, columns = grid = best_grid(*p.image.size)
    fit, left, top = grid_mapping(*p.image.size, grid)
    pixels = cut(p.image)
    views = [(TILE / p.image.width, TILE / p.image.height, 0.0, 0.0)]
    views += [(fit, fit, left - c * TILE, top - r * TILE) for r in range(rows) for c in range(columns)]
    out = []
    for i, (sx, sy, ox, oy) in enumerate(views):
        key = np.full((SIDE, SIDE), -1, np.int64)
        slots = np.zeros((SLOTS, SIDE, SIDE), np.int64)
        for field in p.fields:
            x0, y0, x1, y1 = _to(field.box, sx, sy, ox, oy)
            if x1 <= 0 or y1 <= 0 or x0 >= TILE or y0 >= TILE:
                continue
            touched = np.outer(_overlap(y0, y1) > 1.0, _overlap(x0, x1) > 1.0)
            key[touched] = KEYS.index(field.key)
            for slot, (digit, box) in enumerate(zip(field.value, field.digits, strict=True)):
                bx0, by0, bx1, by1 = _to(box, sx, sy, ox, oy)
                share = np.outer(_overlap(by0, by1), _overlap(bx0, bx1))
                share = share / ((bx1 - bx0) * (by1 - by0))
                slots[slot][share >= 0.18] = IGNORE
                slots[slot][share >= 0.35] = int(digit) + 1
        out.append(Partition(pixels[i], key, slots, float(i > 0)))
    return out


def _to(box: tuple[float, ...], sx: float, sy: float, ox: float, oy: float) -> tuple[float, ...]:
    return box[0] * sx + ox, box[1] * sy + oy, box[2] * sx + ox, box[3] * sy + oy


_EDGES = np.arange(SIDE) * PATCH


def _overlap(a: float, b: float) -> np.ndarray:
    """Length of [a, b] inside each of the 12 patches along a side, in pixels."""
    return np.clip(np.minimum(_EDGES + PATCH, b) - np.maximum(_EDGES, a), 0, None)


def encoder_batches(seed: int, size: int) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of single partitions, about one in seven a shrunk full image."""
    rng = np.random.default_rng([seed, 1])
    pool: list[Partition] = []
    while True:
        while len(pool) < size * 4:
            task = "dense" if rng.random() < 0.35 else "forms"
            for part in partitions(page(int(rng.integers(10_000_000_000)), task=task)):
                keep = 0.15 if part.key.max() < 0 else (1.0 if part.whole else 0.35)
                if rng.random() < keep:
                    pool.append(part)
        order = rng.permutation(len(pool))
        pool = [pool[i] for i in order]
        batch, pool = pool[:size], pool[size:]
        yield {
            "pixels": np.stack([b.pixels for b in batch]),
            "key": np.stack([b.key for b in batch]),
            "slots": np.stack([b.slots for b in batch]),
            "whole": np.array([b.whole for b in batch], np.float32),
        }
