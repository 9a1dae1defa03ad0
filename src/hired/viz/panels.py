"""The pictures inside the figure: kept tokens clear and dropped ones veiled, and the heat map.

Arrays are (height, width[, 3]); boxes are (x0, y0, x1, y1) in pixels of the original picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["ACCENT", "VEIL", "VEIL_SHARE", "Box", "Panel", "colours", "heat_panel", "token_panel"]

Box = tuple[float, float, float, float]
Pixels = NDArray[np.uint8]

ACCENT = (255, 150, 20)
"""Colour of the outline around kept tokens."""
VEIL = (92, 100, 118)
"""Colour that dropped tokens are blended towards, by `VEIL_SHARE`."""
VEIL_SHARE = 0.8
_UNSEEN = (226, 224, 219), (208, 205, 198)
_STRIPE = 7
_HEAT = np.array(
    [
        (8, 6, 28),
        (52, 14, 92),
        (110, 26, 110),
        (165, 44, 96),
        (214, 76, 64),
        (244, 130, 30),
        (250, 196, 52),
        (252, 252, 176),
    ],
    dtype=np.float64,
)


@dataclass(frozen=True)
class Panel:
    """One picture of the figure.

    Attributes:
        image: What to paste.
        frames: The rectangle (x0, y0, x1, y1) of each partition in it, in panel pixels, by partition
            index. A partition that shows nothing of the picture has none.
        kept: Boolean (height, width): panel pixels that show a kept token.
    """

    image: Image.Image
    frames: dict[int, tuple[int, int, int, int]]
    kept: NDArray[np.bool_]


def token_panel(
    image: Image.Image,
    scale: float,
    partitions: dict[int, tuple[Box, int, int]],
    real: Iterable[tuple[int, Box]],
    kept: Iterable[tuple[int, Box]],
    gap: int,
    background: tuple[int, int, int],
) -> Panel:
    """Draw partitions in place, `gap` pixels apart.

    Args:
        image: The original picture, RGB.
        scale: Panel pixels per picture pixel.
        partitions: By index: box, row and column of the partition.
        real: (partition, box) of every token that shows a part of the picture.
        kept: The same of the tokens that are kept.
        gap: Panel pixels between neighbouring partitions.
        background: Colour of the gaps.

    Returns:
        The panel. Picture area that no token covers is hatched.
    """
    width, height = _scaled(image.size, scale)
    source = np.asarray(_resized(image, (width, height)))
    rows = 1 + max(row for _, row, _ in partitions.values())
    columns = 1 + max(column for _, _, column in partitions.values())
    size = (height + gap * (rows - 1), width + gap * (columns - 1))
    canvas = np.empty((*size, 3), dtype=np.uint8)
    canvas[:] = background
    all_kept = np.zeros(size, dtype=bool)
    cells = {index: np.zeros((height, width), dtype=np.uint8) for index in partitions}
    side = 1e9
    for value, tokens in ((1, real), (2, kept)):
        for index, box in tokens:
            if index in cells:
                x0, y0, x1, y1 = _panel_box(box, scale, width, height)
                cells[index][y0:y1, x0:x1] = value
                side = min(side, max(x1 - x0, 1), max(y1 - y0, 1))
    frames: dict[int, tuple[int, int, int, int]] = {}
    line = 2 if side >= 9 else 1
    for index, (box, row, column) in partitions.items():
        x0, y0, x1, y1 = _panel_box(box, scale, width, height)
        if x1 <= x0 or y1 <= y0:
            continue
        state = cells[index][y0:y1, x0:x1]
        left, top = x0 + gap * column, y0 + gap * row
        canvas[top : top + y1 - y0, left : left + x1 - x0] = _veiled(source[y0:y1, x0:x1], state, line)
        all_kept[top : top + y1 - y0, left : left + x1 - x0] = state == 2
        frames[index] = (left, top, left + x1 - x0, top + y1 - y0)
    if len(partitions) == 1:
        _uncovered(canvas, source, next(iter(frames.values()), (0, 0, 0, 0)))
    return Panel(Image.fromarray(canvas), frames, all_kept)


def heat_panel(image: Image.Image, scale: float, content: NDArray[np.float64], boxes: dict[int, Box]) -> Panel:
    """Colour the picture by `content` (h_cells, w_cells), which covers all of it.

    Args:
        image: The original picture, RGB.
        scale: Panel pixels per picture pixel.
        content: Attention mass, any scale; the map runs from its least to its 99th percentile.
        boxes: The partitions to frame, by index.
    """
    width, height = _scaled(image.size, scale)
    low, high = float(content.min()), float(np.percentile(content, 99))
    level = np.clip((content - low) / max(high - low, 1e-12), 0.0, 1.0)
    heat = np.asarray(Image.fromarray(level.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
    grey = np.asarray(_resized(image, (width, height)).convert("L"), dtype=np.float64) / 255.0
    mixed = colours(heat) * (0.35 + 0.65 * grey[..., None])
    pixels = np.clip(mixed, 0, 255).astype(np.uint8)
    frames: dict[int, tuple[int, int, int, int]] = {}
    for index, box in boxes.items():
        x0, y0, x1, y1 = _panel_box(box, scale, width, height)
        if x1 > x0 and y1 > y0:
            frames[index] = (x0, y0, x1, y1)
            if x0 > 0:
                pixels[y0:y1, x0 - 1 : x0 + 1] = 255
            if y0 > 0:
                pixels[y0 - 1 : y0 + 1, x0:x1] = 255
    return Panel(Image.fromarray(pixels), frames, np.zeros((height, width), dtype=bool))


def colours(level: NDArray[np.floating]) -> NDArray[np.float64]:
    """Heat colours (..., 3), 0..255, of levels 0..1."""
    places = np.linspace(0.0, 1.0, len(_HEAT))
    return np.stack([np.interp(level, places, _HEAT[:, c]) for c in range(3)], axis=-1)


def _veiled(source: Pixels, state: NDArray[np.uint8], line: int) -> Pixels:
    """Picture pixels (h, w, 3) with state 0 (no token) hatched, 1 (dropped) veiled, 2 (kept) clear."""
    height, width = state.shape
    grey = source.astype(np.float64).mean(axis=-1, keepdims=True)
    veil = grey * (1 - VEIL_SHARE) + np.array(VEIL, dtype=np.float64) * VEIL_SHARE
    out = np.where((state == 2)[..., None], source, veil)
    out = np.where((state == 0)[..., None], _hatch(height, width), out)
    if (state == 2).any() and (state == 1).any():
        out[_outline(state == 2, line)] = ACCENT
    return np.asarray(out, dtype=np.uint8)


def _outline(mask: NDArray[np.bool_], line: int) -> NDArray[np.bool_]:
    """The pixels of a mask within `line` pixels of its border; the picture's edge is a border too."""
    inner = np.pad(mask, line)
    for _ in range(line):
        shrunk = inner.copy()
        shrunk[1:] &= inner[:-1]
        shrunk[:-1] &= inner[1:]
        shrunk[:, 1:] &= inner[:, :-1]
        shrunk[:, :-1] &= inner[:, 1:]
        inner = shrunk
    result: NDArray[np.bool_] = mask & ~inner[line:-line, line:-line]
    return result


def _uncovered(canvas: Pixels, source: Pixels, frame: tuple[int, int, int, int]) -> None:
    """Show, hatched and faint, what one partition's crop leaves out of the picture."""
    height, width = source.shape[:2]
    faint = 0.25 * source + 0.75 * _hatch(height, width)
    x0, y0, x1, y1 = frame
    outside = np.ones((height, width), dtype=bool)
    outside[y0:y1, x0:x1] = False
    canvas[outside] = faint[outside].astype(np.uint8)


def _hatch(height: int, width: int) -> NDArray[np.float64]:
    """Diagonal stripes (height, width, 3)."""
    stripes = ((np.arange(height)[:, None] + np.arange(width)[None]) // _STRIPE) % 2
    return np.asarray(np.array(_UNSEEN, dtype=np.float64)[stripes])


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(width, height) of a picture at a scale, at least one pixel."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at a size; smooth in both directions."""
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _panel_box(box: Box, scale: float, width: int, height: int) -> tuple[int, int, int, int]:
    """A picture box in whole panel pixels, cut to the picture; neighbours stay neighbours."""
    x0, y0, x1, y1 = (round(v * scale) for v in box)
    return min(max(x0, 0), width), min(max(y0, 0), height), min(max(x1, 0), width), min(max(y1, 0), height)
