"""Seeded pictures of labelled values: what the small shipped model is trained and measured on.

A *page* is a piece of tinted paper, of some size and shape, with a few scattered lines such as
``TOTAL 4172`` or ``TAX: 381``, light clutter (rules, boxes, rings, blobs) and blank space. The same
seed always gives the same page, for one version of Pillow and of the fonts.

Two tasks: ``forms`` (one to four lines; text touches about a twentieth of the tile tokens) and
``dense`` (more text than a fifth of all tokens can hold).

Text size is set in the pixels of the tile grid that LLaVA-NeXT would cut the page into (tiles of
`TILE` pixels), so text is legible in the tiles and mostly not in the shrunk full image. A tile of an
ordinary vision-language model is several times as wide as a word; here it is not, and random
placement would cut a third of all lines at a tile border. Lines are therefore placed so that no
border cuts them, except for a share of `CUT_SHARE`, about what borders cut in practice.

Fonts are those that matplotlib and Pillow ship with, so nothing is downloaded. matplotlib is an
optional dependency and is imported when the first page is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hired.errors import BudgetError, MissingDependencyError

if TYPE_CHECKING:
    from numpy.random import Generator

__all__ = [
    "DEMO_SEEDS",
    "EVAL_SEEDS",
    "KEYS",
    "TRAIN_SEEDS",
    "Field",
    "Page",
    "page",
]

Task = Literal["forms", "dense"]
FontSet = Literal["train", "unseen"]
Box = tuple[float, float, float, float]

TRAIN_SEEDS = range(10_000_000_000)
"""Seeds that training may use."""
EVAL_SEEDS = range(10_000_000_000, 10_001_000_000)
"""Seeds for measuring; training never draws from them."""
DEMO_SEEDS = range(20_000_000_000, 20_000_001_000)
"""Seeds for demonstrations; neither training nor measuring draws from them."""

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
CUT_SHARE = 0.04
"""Share of lines that may lie anywhere, tile borders included."""

KEYS: tuple[str, ...] = (
    "TOTAL",
    "TAX",
    "TIP",
    "NET",
    "SUM",
    "QTY",
    "FEE",
    "DUE",
    "PIN",
    "BOX",
    "LOT",
    "BAY",
    "ROOM",
    "GATE",
    "SEAT",
    "ROW",
    "BUS",
    "UNIT",
    "ITEM",
    "CODE",
    "CASH",
    "PAID",
    "BILL",
    "CARD",
)
"""Every label that can stand on a page. A page never shows the same one twice."""

_FONT_FILES: dict[str, tuple[str, ...]] = {
    "train": (
        "DejaVuSans.ttf",
        "DejaVuSans-Bold.ttf",
        "DejaVuSansMono.ttf",
        "DejaVuSansMono-Bold.ttf",
        "DejaVuSerif.ttf",
        "DejaVuSerif-Bold.ttf",
    ),
    "unseen": ("STIXGeneral.ttf", "STIXGeneralBol.ttf", "cmss10.ttf", "Aileron"),
}
_TEXT_SIZES = (9.0, 11.5)
"""Font sizes, in tile pixels."""
_INKS = ((20, 20, 24), (24, 36, 110), (120, 24, 24), (20, 84, 44), (84, 40, 100), (70, 70, 70))


@dataclass(frozen=True)
class Field:
    """One labelled value on a page. Boxes are (x0, y0, x1, y1) in pixels of the page.

    Attributes:
        key: The label, one of `KEYS`.
        value: The digits, as a string.
        box: The whole line.
        digits: One box for each digit of the value.
    """

    key: str
    value: str
    box: Box
    digits: tuple[Box, ...]


@dataclass(frozen=True)
class Page:
    """A drawn page and what is written on it.

    Attributes:
        image: The picture, RGB.
        fields: The lines, in the order they were placed, not reading order.
        seed: The seed it was drawn from.
    """

    image: Image.Image
    fields: tuple[Field, ...]
    seed: int

    def question(self, i: int = 0) -> str:
        """The question whose answer is ``fields[i].value``."""
        return f"What is {self.fields[i].key}?"


def page(seed: int, *, task: Task = "forms", fonts: FontSet = "train") -> Page:
    """Draw the page of a seed.

    Args:
        seed: Any non-negative integer; see `TRAIN_SEEDS`, `EVAL_SEEDS` and `DEMO_SEEDS`.
        task: ``forms`` (one to four lines) or ``dense`` (about three lines a tile).
        fonts: ``train``, or ``unseen``: typefaces that training never showed.

    Raises:
        BudgetError: A value that is none of these.
        MissingDependencyError: matplotlib, whose fonts the pages are written with, is not installed, or Pillow was
            built without FreeType.
    """
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise BudgetError(f"seed must be a whole number of at least 0, not {seed!r:.80}")
    if task not in ("forms", "dense"):
        raise BudgetError(f"task must be 'forms' or 'dense', not {task!r:.80}")
    if not isinstance(fonts, str) or fonts not in _FONT_FILES:
        raise BudgetError(f"fonts must be 'train' or 'unseen', not {fonts!r:.80}")
    rng = np.random.default_rng([seed, ("forms", "dense").index(task)])
    shares = np.array(GRID_SHARES)
    if task == "dense":
        shares = shares * [r * c >= 3 for r, c in GRIDS]
    grid = GRIDS[rng.choice(len(GRIDS), p=shares / shares.sum())]
    width, height = _shape(rng, grid)
    area = width * height * grid_mapping(width, height, grid)[0] ** 2 / TILE**2
    if task == "forms":
        lines = int(np.clip(round(0.65 * area + rng.normal(0, 0.6)), 1, 4))
    else:
        lines = int(np.clip(round(area * rng.uniform(3.2, 4.0)), 3, len(KEYS)))
    return _write(rng, seed, width, height, grid, lines, fonts)


def practice(seed: int, grid: tuple[int, int], lines: int) -> Page:
    """A page with a given tile grid and, room permitting, a given number of lines: for training."""
    rng = np.random.default_rng([seed, 2])
    return _write(rng, seed, *_shape(rng, grid), grid, lines, "train")


def _write(
    rng: Generator,
    seed: int,
    width: int,
    height: int,
    grid: tuple[int, int],
    lines: int,
    fonts: FontSet,
) -> Page:
    """Draw paper, clutter and lines."""
    fit, left, top = grid_mapping(width, height, grid)
    area = width * height * fit * fit / TILE**2
    image = _paper(rng, width, height)
    draw = ImageDraw.Draw(image)
    _clutter(rng, draw, width, height, round(area * rng.uniform(0.0, 1.5)), 1 / fit)
    taken: list[Box] = []
    fields: list[Field] = []
    for key in rng.permutation(len(KEYS)):
        if len(fields) >= lines:
            break
        field = _line(rng, draw, KEYS[key], fonts, (width, height), (fit, left, top), taken)
        if field is not None:
            fields.append(field)
            taken.append(field.box)
    return Page(image, tuple(fields), seed)


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


def _shape(rng: Generator, grid: tuple[int, int]) -> tuple[int, int]:
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


def _paper(rng: Generator, width: int, height: int) -> Image.Image:
    """Tinted paper with a soft gradient and a little grain."""
    base = rng.uniform(205, 255) + rng.uniform(-14, 8, size=3)
    corners = base + rng.uniform(-14, 14, size=(3, 3, 1)) + rng.normal(0, 1.5, size=(3, 3, 3))
    small = Image.fromarray(np.clip(corners, 0, 255).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def _clutter(rng: Generator, draw: ImageDraw.ImageDraw, width: int, height: int, count: int, unit: float) -> None:
    """Rules, boxes, rings and blobs, paler than any text. ``unit``: page pixels a tile pixel."""
    for _ in range(count):
        tone = rng.uniform(150, 225)
        ink = tuple(int(v) for v in np.clip(tone + rng.uniform(-25, 25, size=3), 0, 255))
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        w, h = rng.uniform(12, 70) * unit, rng.uniform(8, 40) * unit
        stroke = max(1, round(rng.uniform(0.6, 1.6) * unit))
        kind = rng.integers(5)
        if kind == 0:
            draw.line((x, y, x + w, y), fill=ink, width=stroke)
        elif kind == 1:
            draw.line((x, y, x, y + h), fill=ink, width=stroke)
        elif kind == 2:
            draw.rectangle((x, y, x + w, y + h), outline=ink, width=stroke)
        elif kind == 3:
            draw.ellipse((x, y, x + h, y + h), outline=ink, width=stroke)
        else:
            draw.ellipse((x, y, x + w, y + h), fill=ink)


def _line(
    rng: Generator,
    draw: ImageDraw.ImageDraw,
    key: str,
    fonts: FontSet,
    size: tuple[int, int],
    mapping: tuple[float, int, int],
    taken: list[Box],
) -> Field | None:
    """Find room for one line and draw it; None where there is no room."""
    fit, left, top = mapping
    files = _FONT_FILES[fonts]
    name = files[rng.integers(len(files))]
    font = _font(name, round(rng.uniform(*_TEXT_SIZES) / fit * 2) / 2)
    digits = 3 if rng.random() < 0.6 else 4
    value = str(rng.integers(10 ** (digits - 1), 10**digits))
    label = key + (": " if rng.random() < 0.4 else " ")
    text = label + value
    x0, y0, x1, y1 = font.getbbox(text)
    w, h = x1 - x0, y1 - y0
    cut = rng.random() < CUT_SHARE
    gap = 3 / fit
    for _ in range(80):
        px = rng.uniform(gap, max(size[0] - w - gap, gap + 1e-3))
        py = rng.uniform(gap, max(size[1] - h - gap, gap + 1e-3))
        box = (px, py, px + w, py + h)
        if box[2] > size[0] or box[3] > size[1]:
            continue
        if not cut and _crosses(box, fit, left, top):
            continue
        if any(
            box[0] < t[2] + 2 * gap and t[0] < box[2] + 2 * gap and box[1] < t[3] + gap and t[1] < box[3] + gap
            for t in taken
        ):
            continue
        break
    else:
        return None
    ox, oy = round(px - x0), round(py - y0)
    ink = np.array(_INKS[rng.integers(len(_INKS))]) + rng.uniform(-18, 30, size=3)
    draw.text((ox, oy), text, font=font, fill=tuple(int(v) for v in np.clip(ink, 0, 140)))
    edges = [ox + font.getlength(text[: len(label) + i]) for i in range(digits + 1)]
    return Field(
        key,
        value,
        (ox + x0, oy + y0, ox + x1, oy + y1),
        tuple((edges[i], oy + y0, edges[i + 1], oy + y1) for i in range(digits)),
    )


def _crosses(box: Box, fit: float, left: int, top: int) -> bool:
    """Whether a tile border cuts a box (in page pixels), or nearly touches it."""
    x0, x1 = box[0] * fit + left - 1, box[2] * fit + left + 1
    y0, y1 = box[1] * fit + top - 1, box[3] * fit + top + 1
    return int(x0 // TILE) != int(x1 // TILE) or int(y0 // TILE) != int(y1 // TILE)


@lru_cache(maxsize=512)
def _font(name: str, size: float) -> ImageFont.FreeTypeFont:
    """A typeface of `_FONT_FILES` at a size in pixels of the page."""
    if name == "Aileron":
        font = ImageFont.load_default(size)
        if not isinstance(font, ImageFont.FreeTypeFont):
            raise MissingDependencyError("the pages are written with FreeType: install a Pillow built with it")
        return font
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependencyError(
            "the pages are written with matplotlib's fonts: pip install 'hired-vlm[eval]'"
        ) from error

    path = f"{matplotlib.get_data_path()}/fonts/ttf/{name}"
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
