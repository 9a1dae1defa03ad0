"""Pages as training data: partitions cut as the image processor cuts them, and per-patch labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from hired.forms import (
    COLOURS,
    KEYS,
    SHAPES,
    TILE,
    TITLES,
    TRAIN_SEEDS,
    Field,
    Page,
    Task,
    Thing,
    draw,
)
from training.fonts import style
from training.recipes.base import PATCH, SIDE, Recipe, View

SLOTS = 4
"""Most digits a value can have."""
IGNORE = -100
"""Label that no loss counts."""
UNREAD = -2
"""Label of text that is not legible in a partition: too small, or mostly in the next tile."""
WORDS = (*KEYS, *TITLES)
"""Every word that a patch can show."""
NAMES = (*SHAPES, *WORDS)
"""Everything that can lie beside something."""
TALL, WIDE = 5.2, 3.3
"""Least height, and width a letter, of legible print, in pixels of a partition."""
Box = tuple[float, float, float, float]


@dataclass
class Partition:
    """One encoder input and what a patch of it shows.

    Attributes:
        pixels: (96, 96, 3) uint8.
        key: (12, 12) index into `WORDS` of the line that touches the patch; -1: none, `UNREAD`: not legible here.
        slots: (4, 12, 12) digit number i of that line's value, plus one, where most of the digit's
            share of the patch lies; 0: not here; `IGNORE`: hardly, or not legible.
        whole: 1.0 for a tile, 0.0 for the shrunk full image.
        shape: (12, 12) index into `SHAPES`, plus one; 0: none; `IGNORE`: only a piece of it is in the partition.
        colour: (12, 12) index into `COLOURS` of that shape, plus one; 0: none.
        owner: (12, 12) number of the mark that the patch shows, in the order of `Page.ink`; -1: none.
        beside: (4, 12, 12) index into `NAMES` of what lies left, right, above and under the mark that the patch
            shows, plus one; 0: nothing; `IGNORE`: not to be told here. Of pages of the layout task only.
    """

    pixels: np.ndarray
    key: np.ndarray
    slots: np.ndarray
    whole: float
    shape: np.ndarray = field(default_factory=lambda: np.zeros((SIDE, SIDE), np.int64))
    colour: np.ndarray = field(default_factory=lambda: np.zeros((SIDE, SIDE), np.int64))
    owner: np.ndarray = field(default_factory=lambda: np.full((SIDE, SIDE), -1, np.int64))
    beside: np.ndarray = field(default_factory=lambda: np.full((4, SIDE, SIDE), IGNORE, np.int64))


def partitions(p: Page, recipe: Recipe, lattice: bool = False) -> list[Partition]:
    """Every partition of a page with its labels, in the order of the encoder.

    Args:
        p: The page.
        recipe: The model.
        lattice: Whether the page is one of the layout task, whose things have neighbours.
    """
    pixels = recipe.cut(p.image)
    beside = _beside(p) if lattice else {}
    out = []
    for i, view in enumerate(recipe.views(*p.image.size)):
        part = Partition(
            pixels[i], np.full((SIDE, SIDE), -1, np.int64), np.zeros((SLOTS, SIDE, SIDE), np.int64), float(view.tile)
        )
        seen = [_label_field(part, _moved(f.box, view), f, view, n) for n, f in enumerate(p.fields)]
        seen += [_label_thing(part, _moved(t.box, view), t, n) for n, t in enumerate(p.things, start=len(p.fields))]
        if lattice:
            for n, near in beside.items():
                patches = part.owner == n
                for way, other in enumerate(near):
                    told = 0 if other is None else NAMES.index(p.things[other].name) + 1
                    if (other is None and view.tile) or (other is not None and not seen[other]):
                        told = IGNORE
                    part.beside[way][patches] = told
        out.append(part)
    return out


def _label_field(part: Partition, box: Box, line: Field, view: View, number: int) -> bool:
    x0, y0, x1, y1 = box
    if x1 <= 0 or y1 <= 0 or x0 >= TILE or y0 >= TILE:
        return False
    touched = np.outer(_overlap(y0, y1) > 1.0, _overlap(x0, x1) > 1.0)
    boxes = [_moved(b, view) for b in line.digits]
    legible = min(b[3] - b[1] for b in boxes) >= TALL and min(b[2] - b[0] for b in boxes) >= WIDE
    # A piece of a line still tells its key where most of it is there.
    legible_key = legible and _inside(box) >= 0.6
    part.key[touched] = WORDS.index(line.key) if legible_key else UNREAD
    part.owner[touched] = number
    for slot, (digit, b) in enumerate(zip(line.value, boxes, strict=True)):
        area = np.outer(_overlap(b[1], b[3]), _overlap(b[0], b[2]))
        share, cover = area / ((b[2] - b[0]) * (b[3] - b[1])), area / PATCH**2
        part.slots[slot][(share >= 0.18) | (cover >= 0.25)] = IGNORE
        if legible and _inside(b) >= 0.85:
            part.slots[slot][(share >= min(0.35, 0.85 * share.max())) | (cover >= 0.5)] = int(digit) + 1
    return legible_key


def _label_thing(part: Partition, box: Box, thing: Thing, number: int) -> bool:
    x0, y0, x1, y1 = box
    trim = 0.1 if thing.colour else 0.0
    w, h = x1 - x0, y1 - y0
    across = _overlap(x0 + trim * w, x1 - trim * w)
    touched = np.outer(_overlap(y0 + trim * h, y1 - trim * h) > 1.5, across > 1.5)
    if not touched.any():
        return False
    part.owner[touched] = number
    if thing.colour:
        legible = min(w, h) >= 5 and _inside(box) >= 0.7
        part.shape[touched] = list(SHAPES).index(thing.name) + 1 if legible else IGNORE
        part.colour[touched] = list(COLOURS).index(thing.colour) + 1
    else:
        legible = h >= TALL and w / len(thing.name) >= WIDE and _inside(box) >= 0.85
        part.key[touched] = WORDS.index(thing.name) if legible else UNREAD
    return legible


def _beside(p: Page) -> dict[int, list[int | None]]:
    """For each thing of a layout page, by number: what lies left, right, above and under it, among the things."""
    first = len(p.fields)
    cells: dict[tuple[int, int], int] = {}
    for n, t in enumerate(p.things):
        if t.name in TITLES:
            cells[0, 1] = n
        else:
            x, y = (t.box[0] + t.box[2]) / 2, (t.box[1] + t.box[3]) / 2
            cells[min(int(3 * y / p.image.height), 2), min(int(3 * x / p.image.width), 2)] = n
    ways = ((0, -1), (0, 1), (-1, 0), (1, 0))
    return {first + n: [cells.get((row + r, column + c)) for r, c in ways] for (row, column), n in cells.items()}


def token_marks(part: Partition, merge: np.ndarray) -> dict[str, np.ndarray]:
    """A partition's other labels by visual token: `owner`, `shape` and `colour`, each (tokens,).

    Args:
        part: The partition.
        merge: (tokens, k) the patches of each token.
    """
    owner = part.owner.ravel()[merge]
    first = (owner >= 0).argmax(1)[:, None]

    def taken(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values.ravel()[merge], first, 1)[:, 0]

    return {"owner": taken(part.owner), "shape": taken(part.shape), "colour": taken(part.colour)}


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


def _moved(box: tuple[float, ...], view: View) -> Box:
    """A box of the page in the pixels of a partition."""
    return (
        box[0] * view.sx + view.ox,
        box[1] * view.sy + view.oy,
        box[2] * view.sx + view.ox,
        box[3] * view.sy + view.oy,
    )


def _inside(box: Box) -> float:
    """Share of a box that lies in the partition."""
    w = min(box[2], TILE) - max(box[0], 0)
    h = min(box[3], TILE) - max(box[1], 0)
    return max(w, 0) * max(h, 0) / ((box[2] - box[0]) * (box[3] - box[1]))


_EDGES = np.arange(SIDE) * PATCH


def _overlap(a: float, b: float) -> np.ndarray:
    """Length of [a, b] inside each of the 12 patches along a side, in pixels."""
    return np.clip(np.minimum(_EDGES + PATCH, b) - np.maximum(_EDGES, a), 0, None)


SHARES: dict[Task, float] = {
    "forms": 0.16,
    "dense": 0.34,
    "large": 0.16,
    "shapes": 0.09,
    "layout": 0.12,
    "mixed": 0.13,
}
"""How often the tower sees pages of each task: a tile of a dense page teaches five times as much as one of forms."""


def encoder_batches(seed: int, size: int, recipe: Recipe) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of single partitions, about one in four a shrunk full image."""
    rng = np.random.default_rng([seed, 1])
    pool: list[Partition] = []
    tasks, shares = list(SHARES), list(SHARES.values())
    while True:
        while len(pool) < size * 8:
            task = tasks[rng.choice(len(tasks), p=shares)]
            made = draw(int(rng.integers(len(TRAIN_SEEDS))), task, style())
            for part in partitions(made, recipe, task == "layout"):
                keep = 0.1 if part.owner.max() < 0 else 0.75
                if not part.whole and task in ("forms", "dense"):
                    keep = 0.2
                if rng.random() < keep:
                    pool.append(part)
        order = rng.permutation(len(pool))
        pool = [pool[i] for i in order]
        batch, pool = pool[:size], pool[size:]
        names = ("pixels", "key", "slots", "shape", "colour", "beside")
        made_batch = {name: np.stack([getattr(b, name) for b in batch]) for name in names}
        yield made_batch | {"whole": np.array([b.whole for b in batch], np.float32)}
