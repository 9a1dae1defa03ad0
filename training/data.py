"""Pages as training data: partitions cut as the image processor cuts them, and per-patch labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hired.forms import KEYS, TILE, Page, page
from training.recipes.base import PATCH, SIDE, Recipe, View

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


def partitions(p: Page, recipe: Recipe) -> list[Partition]:
    """Every partition of a page with its labels, in the order of the encoder."""
    pixels = recipe.cut(p.image)
    out = []
    for i, view in enumerate(recipe.views(*p.image.size)):
        key = np.full((SIDE, SIDE), -1, np.int64)
        slots = np.zeros((SLOTS, SIDE, SIDE), np.int64)
        for field in p.fields:
            x0, y0, x1, y1 = _to(field.box, view)
            if x1 <= 0 or y1 <= 0 or x0 >= TILE or y0 >= TILE:
                continue
            touched = np.outer(_overlap(y0, y1) > 1.0, _overlap(x0, x1) > 1.0)
            key[touched] = KEYS.index(field.key)
            for slot, (digit, box) in enumerate(zip(field.value, field.digits, strict=True)):
                bx0, by0, bx1, by1 = _to(box, view)
                share = np.outer(_overlap(by0, by1), _overlap(bx0, bx1))
                share = share / ((bx1 - bx0) * (by1 - by0))
                slots[slot][share >= 0.18] = IGNORE
                slots[slot][share >= 0.35] = int(digit) + 1
        out.append(Partition(pixels[i], key, slots, float(view.tile)))
    return out


def token_labels(part: Partition, merge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A partition's labels by visual token: key (tokens,) and slots (4, tokens).

    A token made of several patches has the line that most of those with text belong to, and that line's digits.

    Args:
        part: The partition.
        merge: (tokens, k) the patches of each token.
    """
    key, slots = part.key.ravel()[merge], part.slots.reshape(SLOTS, -1)[:, merge]
    votes = (key[:, :, None] == key[:, None]).sum(2) * (key >= 0)
    line = np.take_along_axis(key, votes.argmax(1)[:, None], 1)
    return line[:, 0], np.where(key == line, slots, 0).max(2)


def _to(box: tuple[float, ...], view: View) -> tuple[float, ...]:
    return (
        box[0] * view.sx + view.ox,
        box[1] * view.sy + view.oy,
        box[2] * view.sx + view.ox,
        box[3] * view.sy + view.oy,
    )


_EDGES = np.arange(SIDE) * PATCH


def _overlap(a: float, b: float) -> np.ndarray:
    """Length of [a, b] inside each of the 12 patches along a side, in pixels."""
    return np.clip(np.minimum(_EDGES + PATCH, b) - np.maximum(_EDGES, a), 0, None)


def encoder_batches(seed: int, size: int, recipe: Recipe) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of single partitions, about one in seven a shrunk full image."""
    rng = np.random.default_rng([seed, 1])
    pool: list[Partition] = []
    while True:
        while len(pool) < size * 4:
            task = "dense" if rng.random() < 0.35 else "forms"
            for part in partitions(page(int(rng.integers(10_000_000_000)), task=task), recipe):
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
