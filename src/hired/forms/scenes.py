"""Pages that are more than small print: large print, shapes, layouts, and all of it on one page."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hired.forms import asking
from hired.forms.canvas import Canvas
from hired.forms.geometry import GRID_SHARES, GRIDS, TILE, Box
from hired.forms.parts import COLOURS, SHAPES, TITLES, Page, Thing, field_questions
from hired.forms.small import ink_colour
from hired.forms.typefaces import Style, font

if TYPE_CHECKING:
    from numpy.random import Generator

_LARGE_GRIDS = ((2, 2), (1, 2), (2, 1))
_LARGE_SHARES = (0.6, 0.2, 0.2)
_LAYOUT_GRIDS = ((2, 2), (1, 2), (2, 1), (1, 1))
_LAYOUT_SHARES = (0.55, 0.2, 0.2, 0.05)


def large(rng: Generator, seed: int, style: Style) -> Page:
    """Large print and large shapes that tile borders cut; the shrunk full image shows them whole."""
    c = Canvas(rng, _LARGE_GRIDS[rng.choice(3, p=_LARGE_SHARES)], style)
    for _ in range(1 + (rng.random() < 0.5)):
        c.large()
    names, colours = rng.permutation(len(SHAPES)), rng.permutation(len(COLOURS))
    for i in range(rng.integers(0, 3) if c.fields else 2):
        _cut_shape(c, SHAPES[names[i]], list(COLOURS)[colours[i]])
    looks = [q for q in asking.looks(c.things) if q.text.startswith("What")]
    return c.page(seed, [*field_questions(c.fields), *looks])


def shapes(rng: Generator, seed: int, style: Style) -> Page:
    """One to six shapes of several sizes."""
    c = Canvas(rng, GRIDS[rng.choice(len(GRIDS), p=GRID_SHARES)], style)
    _scatter(c, int(rng.integers(1, 7)))
    return c.page(seed, [*asking.looks(c.things), *asking.counts(c.things)])


def layout(rng: Generator, seed: int, style: Style) -> Page:
    """A title and things on a lattice of three by three places."""
    c = Canvas(rng, _LAYOUT_GRIDS[rng.choice(4, p=_LAYOUT_SHARES)], style)
    titled = rng.random() < 0.7 and _title(c)
    cells = [(row, column) for row in range(1 if titled else 0, 3) for column in range(3)]
    order = [cells[i] for i in rng.permutation(len(cells))]
    if titled:
        order.remove((1, 1))
        order.insert(0, (1, 1))
    found: dict[tuple[int, int], Thing] = {}
    names, colours = list(rng.permutation(len(SHAPES))), rng.permutation(len(COLOURS))
    for i, cell in enumerate(order[: int(rng.integers(2, 6))]):
        if names and (rng.random() < 0.65 or i == 1):
            _in_cell(c, cell, SHAPES[names.pop()], list(COLOURS)[colours[i]])
        else:
            _word_in_cell(c, cell)
        if c.things[-1] not in found.values() and (not titled or len(c.things) > 1):
            found[cell] = c.things[-1]
    title = c.things[0] if titled else None
    return c.page(seed, asking.places(c, found, title))


def mixed(rng: Generator, seed: int, style: Style) -> Page:
    """Small print, large print and shapes on one page."""
    c = Canvas(rng, GRIDS[rng.choice(len(GRIDS), p=GRID_SHARES)], style)
    if rng.random() < 0.75 and c.grid in _LARGE_GRIDS:
        c.large()
    _scatter(c, int(rng.integers(1, 4)), most=0.5)
    for _ in range(int(rng.integers(1, 4))):
        c.small()
    found = asking.looks(c.things) + asking.counts(c.things)[-1:] + asking.where(c, c.things)
    return c.page(seed, [*field_questions(c.fields), *found])


SCENES: dict[str, Callable[[Generator, int, Style], Page]] = {
    "large": large,
    "shapes": shapes,
    "layout": layout,
    "mixed": mixed,
}


def _side(c: Canvas, size: float) -> tuple[float, float]:
    """Width and height of a shape, in page pixels, of a size in tile pixels: not quite as wide as high."""
    stretch = c.rng.uniform(0.88, 1.14)
    return size * stretch / c.fit, size / stretch / c.fit


def _cut_shape(c: Canvas, name: str, colour: str) -> None:
    """A large shape over a tile border."""
    for _ in range(30):
        w, h = _side(c, min(TILE * c.rng.uniform(0.42, 0.72), 0.5 * c.fit * min(c.width, c.height)))
        x, y = c.rng.uniform(0, c.width - w), c.rng.uniform(0, c.height - h)
        axes = [axis for axis in (0, 1) if c.grid[1 - axis] > 1]
        axis = axes[c.rng.integers(len(axes))]
        share = c.rng.uniform(0.35, 0.65)
        if axis == 0:
            x = c.border(0) - share * w
        else:
            y = c.border(1) - share * h
        box = (x, y, x + w, y + h)
        if c.free(box, 2):
            c.mark(name, colour, box)
            return


def _scatter(c: Canvas, count: int, most: float = 0.75) -> None:
    """Shapes anywhere; shape and colour of each are drawn alone, but some are likelier to come again."""
    short = c.fit * min(c.width, c.height)
    usual = SHAPES[c.rng.integers(len(SHAPES))]
    for _ in range(count):
        name = usual if c.rng.random() < 0.4 else SHAPES[c.rng.integers(len(SHAPES))]
        colour = list(COLOURS)[c.rng.integers(len(COLOURS))]
        for _ in range(30):
            size = np.exp(c.rng.uniform(np.log(15), np.log(most * short)))
            w, h = _side(c, float(size))
            if w >= c.width or h >= c.height:
                continue
            x, y = c.rng.uniform(0, c.width - w), c.rng.uniform(0, c.height - h)
            box = (x, y, x + w, y + h)
            if c.free(box, 2):
                c.mark(name, colour, box)
                break


def _cell(c: Canvas, cell: tuple[int, int], w: float, h: float) -> Box:
    """A box of a size about the middle of a place of the lattice."""
    x = (cell[1] + 0.5 + c.rng.uniform(-0.12, 0.12)) * c.width / 3 - w / 2
    y = (cell[0] + 0.5 + c.rng.uniform(-0.12, 0.12)) * c.height / 3 - h / 2
    x, y = np.clip(x, 1, c.width - w - 1), np.clip(y, 1, c.height - h - 1)
    return float(x), float(y), float(x + w), float(y + h)


def _in_cell(c: Canvas, cell: tuple[int, int], name: str, colour: str) -> None:
    room = min(c.width, c.height, 1.6 * c.width, 1.6 * c.height) / 3
    w, h = _side(c, c.rng.uniform(0.5, 0.8) * room * c.fit)
    c.mark(name, colour, _cell(c, cell, w, h))


def _word_in_cell(c: Canvas, cell: tuple[int, int]) -> None:
    """A label alone, in print that fits the place."""
    key, face = c.keys.pop(), c.face()
    size = c.rng.uniform(9.5, 13) / c.fit
    while True:
        x0, y0, x1, y1 = font(face, round(size * 2) / 2).getbbox(key)
        if x1 - x0 <= 0.31 * c.width or size * c.fit < 7.5:
            break
        size *= 0.93
    box = _cell(c, cell, x1 - x0, y1 - y0)
    c.text(key, box, face, round(size * 2) / 2)
    c.things.append(Thing(key, box))
    c.taken.append(box)


def _title(c: Canvas) -> bool:
    """A large word at the top."""
    word, face = TITLES[c.rng.integers(len(TITLES))], c.face()
    size = min(c.rng.uniform(13, 17) / c.shrunk[1], 0.3 * c.height)
    for _ in range(24):
        x0, y0, x1, y1 = font(face, round(size)).getbbox(word)
        w, h = x1 - x0, y1 - y0
        if w <= 0.92 * c.width:
            break
        size *= 0.94
    x = (c.width - w) / 2 + c.rng.uniform(-0.5, 0.5) * min(c.width - w, 0.12 * c.width)
    y = c.rng.uniform(0.03, 0.06) * c.height + 1
    box = (x, y, x + w, y + h)
    c.text(word, box, face, round(size), ink_colour(c.rng, c.dark))
    c.things.append(Thing(word, box))
    c.taken.append(box)
    return True
