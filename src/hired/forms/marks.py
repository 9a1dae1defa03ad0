"""Shapes, drawn with soft edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from hired.forms.geometry import Box
from hired.forms.parts import COLOURS

if TYPE_CHECKING:
    from numpy.random import Generator


def draw_shape(rng: Generator, image: Image.Image, name: str, colour: str, box: Box) -> None:
    """Draw a shape into a box; an outline where its colour is near that of the page."""
    x0, y0, x1, y1 = (round(v) for v in box)
    w, h = max(x1 - x0, 3), max(y1 - y0, 3)
    fill = np.clip(np.array(COLOURS[colour]) + rng.uniform(-12, 12, size=3), 0, 255)
    behind = np.asarray(image.crop((x0, y0, x0 + w, y0 + h))).reshape(-1, 3)
    near = np.abs(behind - fill).mean(1).min() < 70 or rng.random() < 0.15
    outer = _mask(name, w, h, 0.0)
    if near:
        bright = float(fill @ (0.3, 0.59, 0.11))
        page = float(behind.mean(0) @ (0.3, 0.59, 0.11))
        # Darker than both, unless both are dark.
        rim = (225, 225, 225) if max(bright, page) < 110 else (35, 35, 40)
        image.paste(rim, (x0, y0), outer)
        outer = _mask(name, w, h, 0.09)
    image.paste(tuple(int(v) for v in fill), (x0, y0), outer)


def _mask(name: str, w: int, h: int, inset: float) -> Image.Image:
    scale = 3
    mask = Image.new("L", (w * scale, h * scale))
    outline = (_outline(name) - 0.5) * (1 - 2 * inset) + 0.5
    ImageDraw.Draw(mask).polygon([(x * w * scale, y * h * scale) for x, y in outline.tolist()], fill=255)
    return mask.resize((w, h), Image.Resampling.BOX)


def _outline(name: str) -> np.ndarray:
    """Corners in the unit square."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    if name == "circle":
        return np.stack([0.5 + 0.5 * np.cos(turn), 0.5 + 0.5 * np.sin(turn)], 1)
    if name == "square":
        return np.array([(0.04, 0.04), (0.96, 0.04), (0.96, 0.96), (0.04, 0.96)])
    if name == "triangle":
        return np.array([(0.5, 0.02), (1.0, 0.96), (0.0, 0.96)])
    if name == "cross":
        a, b = 0.34, 0.66
        corners = [(a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b), (b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a)]
        return np.array(corners)
    if name == "star":
        tips = np.arange(10) * np.pi / 5 - np.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, 0.52, 0.21)
        return np.stack([0.5 + reach * np.cos(tips), 0.53 + reach * np.sin(tips)], 1)
    x = 16 * np.sin(turn) ** 3
    y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
    return np.stack([0.5 + x / 34, 0.45 - y / 30], 1)
