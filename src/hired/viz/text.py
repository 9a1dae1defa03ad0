"""Text, arrows, chips and colour keys, drawn with Pillow's own typeface."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "ARROW",
    "FAINT",
    "INK",
    "PAPER",
    "chip",
    "chip_size",
    "fitted",
    "quietest",
    "text",
    "text_height",
    "text_width",
]

PAPER = (252, 251, 249)
INK = (28, 32, 42)
FAINT = (112, 116, 126)
ARROW = ">>"
"""Stands for an arrow in any text drawn here; Pillow's typeface has none."""
_CHIP = (20, 24, 34)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's typeface; the bitmap one where Pillow was built without FreeType."""
    return ImageFont.load_default(size)


def text_height(size: int) -> int:
    """Height of a line, in pixels, ascenders and descenders included."""
    return round(size * 1.25)


def text_width(words: str, size: int) -> int:
    """Width of a line, in pixels, arrows included."""
    parts = words.split(ARROW)
    arrows = (len(parts) - 1) * _arrow_width(size)
    return round(sum(_font(size).getlength(part) for part in parts)) + arrows


def text(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], words: str, size: int, colour: tuple[int, int, int]
) -> None:
    """Write one line, its top left corner at `at`, drawing each `ARROW` as an arrow."""
    x, y = at
    for i, part in enumerate(words.split(ARROW)):
        if i:
            _arrow(draw, x, y, size, colour)
            x += _arrow_width(size)
        draw.text((x, y), part, font=_font(size), fill=colour)
        x += _font(size).getlength(part)


def fitted(words: str, size: int, width: int) -> str:
    """The words, cut with dots where they are wider than `width` pixels.

    Few widths are measured, and none of very long words: that takes time for every letter.
    """
    some = words[: max(width, 1)]  # a letter is wider than a pixel
    if some == words and text_width(words, size) <= width:
        return words
    count = bisect_right(range(1, len(some) + 1), width, key=lambda end: text_width(some[:end] + "...", size))
    return some[:count].rstrip() + "..."


def chip_size(words: str, size: int) -> tuple[int, int]:
    """(width, height) of a chip, in pixels."""
    pad = round(size * 0.42)
    return text_width(words, size) + 2 * pad, text_height(size) + round(pad * 0.8)


def chip(image: Image.Image, at: tuple[int, int], words: str, size: int) -> None:
    """Write words on a dark rounded plate, its top left corner at `at`."""
    scale = 4
    width, height = chip_size(words, size)
    mask = Image.new("L", (width * scale, height * scale), 0)
    radius = round(height * 0.28) * scale
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width * scale - 1, height * scale - 1), radius, fill=225)
    plate = Image.new("RGB", (width, height), _CHIP)
    image.paste(plate, at, mask.resize((width, height), Image.Resampling.BOX))
    pad = round(size * 0.42)
    text(ImageDraw.Draw(image), (at[0] + pad, at[1] + round(pad * 0.4)), words, size, (255, 255, 255))


def quietest(busy: np.ndarray, frame: tuple[int, int, int, int], size: tuple[int, int], inset: int) -> tuple[int, int]:
    """The corner of `frame` where a plate of `size` (width, height) hides the fewest busy pixels."""
    x0, y0, x1, y1 = frame
    left, top = x0 + inset, y0 + inset
    right, bottom = max(left, x1 - inset - size[0]), max(top, y1 - inset - size[1])
    corners = [(left, top), (right, top), (left, bottom), (right, bottom)]
    return min(corners, key=lambda c: int(busy[c[1] : c[1] + size[1], c[0] : c[0] + size[0]].sum()))


def _arrow_width(size: int) -> int:
    return round(size * 1.1)


def _arrow(draw: ImageDraw.ImageDraw, x: float, y: float, size: int, colour: tuple[int, int, int]) -> None:
    """An arrow to the right, as wide as `_arrow_width` with its margins."""
    middle, left, right = y + size * 0.66, x + size * 0.1, x + size * 0.98
    head = size * 0.24
    stroke = max(1, round(size * 0.075))
    draw.line((left, middle, right - stroke, middle), fill=colour, width=stroke)
    draw.line((right - head, middle - head, right, middle), fill=colour, width=stroke)
    draw.line((right - head, middle + head, right, middle), fill=colour, width=stroke)
