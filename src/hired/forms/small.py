"""Small print: scattered lines that only the tiles can show.

Text size is set in the pixels of the tile grid that LLaVA-NeXT would cut the page into (tiles of
`TILE` pixels), so text is legible in the tiles and mostly not in the shrunk full image. A tile of an
ordinary vision-language model is several times as wide as a word; here it is not, and random
placement would cut a third of all lines at a tile border. Lines are therefore placed so that no
border cuts them, except for a share of `CUT_SHARE`, about what borders cut in practice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageDraw

from hired.forms.backgrounds import background, paper
from hired.forms.geometry import TILE, Box, crosses, grid_mapping
from hired.forms.parts import KEYS, Field, Page, field_questions
from hired.forms.typefaces import INKS, Style, font

if TYPE_CHECKING:
    from numpy.random import Generator

CUT_SHARE = 0.04
"""Share of lines that may lie anywhere, tile borders included."""


def write(
    rng: Generator,
    seed: int,
    width: int,
    height: int,
    grid: tuple[int, int],
    lines: int,
    style: Style,
) -> Page:
    """Draw paper, clutter and lines."""
    fit, left, top = grid_mapping(width, height, grid)
    area = width * height * fit * fit / TILE**2
    dark = False
    if style.textured and rng.random() < style.textured:
        image, dark = background(rng, width, height)
    else:
        image = paper(rng, width, height)
    draw = ImageDraw.Draw(image)
    _clutter(rng, draw, width, height, round(area * rng.uniform(0.0, 1.5)), 1 / fit)
    taken: list[Box] = []
    fields: list[Field] = []
    for key in rng.permutation(len(KEYS)):
        if len(fields) >= lines:
            break
        field = line(rng, draw, KEYS[key], style, (width, height), (fit, left, top), taken, dark)
        if field is not None:
            fields.append(field)
            taken.append(field.box)
    return Page(image, tuple(fields), seed, questions=field_questions(fields))


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


def line(
    rng: Generator,
    draw: ImageDraw.ImageDraw,
    key: str,
    style: Style,
    size: tuple[int, int],
    mapping: tuple[float, int, int],
    taken: list[Box],
    dark: bool = False,
) -> Field | None:
    """Find room for one line and draw it; None where there is no room. `dark`: whether the background is."""
    fit, left, top = mapping
    files = style.files
    name = files[rng.integers(len(files))]
    face = font(name, round(rng.uniform(*style.sizes) / fit * 2) / 2)
    digits = 3 if rng.random() < 0.6 else 4
    value = str(rng.integers(10 ** (digits - 1), 10**digits))
    label = key + (": " if rng.random() < 0.4 else " ")
    text = label + value
    x0, y0, x1, y1 = face.getbbox(text)
    w, h = x1 - x0, y1 - y0
    cut = rng.random() < CUT_SHARE
    gap = 3 / fit
    for _ in range(80):
        px = rng.uniform(gap, max(size[0] - w - gap, gap + 1e-3))
        py = rng.uniform(gap, max(size[1] - h - gap, gap + 1e-3))
        box = (px, py, px + w, py + h)
        if box[2] > size[0] or box[3] > size[1]:
            continue
        if not cut and crosses(box, fit, left, top):
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
    draw.text((ox, oy), text, font=face, fill=ink_colour(rng, dark))
    edges = [ox + face.getlength(text[: len(label) + i]) for i in range(digits + 1)]
    return Field(
        key,
        value,
        (ox + x0, oy + y0, ox + x1, oy + y1),
        tuple((edges[i], oy + y0, edges[i + 1], oy + y1) for i in range(digits)),
    )


def ink_colour(rng: Generator, dark: bool = False) -> tuple[int, ...]:
    """A colour for text that is readable on a light, or a dark, background."""
    ink = np.array(INKS[rng.integers(len(INKS))]) + rng.uniform(-18, 30, size=3)
    return tuple(int(v) for v in (np.clip(255 - ink / 3, 0, 255) if dark else np.clip(ink, 0, 140)))
