"""What pages are drawn on: paper, gradients, textures that vary as photographs do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

if TYPE_CHECKING:
    from numpy.random import Generator

LIGHT, DARK = (158, 255), (0, 84)
"""Range that a texture's pixels stay in, so that dark, or light, text is readable on it."""


def paper(rng: Generator, width: int, height: int) -> Image.Image:
    """Tinted paper with a soft gradient and a little grain."""
    base = rng.uniform(205, 255) + rng.uniform(-14, 8, size=3)
    corners = base + rng.uniform(-14, 14, size=(3, 3, 1)) + rng.normal(0, 1.5, size=(3, 3, 3))
    small = Image.fromarray(np.clip(corners, 0, 255).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def background(rng: Generator, width: int, height: int) -> tuple[Image.Image, bool]:
    """Any background, and whether it is dark."""
    kind = rng.integers(6)
    if kind == 0:
        return paper(rng, width, height), False
    dark = bool(rng.random() < 0.3)
    low, high = DARK if dark else LIGHT
    h, w = -(-height // 2), -(-width // 2)
    tint = rng.uniform(low, high, size=3)
    if kind == 1:
        field = _gradient(rng, h, w)[..., None] * rng.uniform(-60, 60, size=3)
    elif kind == 2:
        field = np.stack([_fractal(rng, h, w) for _ in range(3)], -1) * rng.uniform(12, 34)
    elif kind == 3:
        field = _fractal(rng, h, w)[..., None] * rng.uniform(-38, 38, size=3)
    elif kind == 4:
        field = _blobs(rng, h, w)
    else:
        field = _wood(rng, h, w)[..., None] * rng.uniform(0.4, 1.0, size=3) * rng.uniform(12, 30)
    field = field - field.mean((0, 1)) + tint
    field += rng.normal(0, rng.uniform(0, 4), size=(h, w, 1))
    small = Image.fromarray(np.clip(field, low, high).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC), dark


def worn(rng: Generator, image: Image.Image, fit: float) -> Image.Image:
    """A page a little blurred, or with noise. ``fit``: tile pixels for a page pixel."""
    kind = rng.integers(3)
    if kind == 0:
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.7) / fit))
    pixels = np.asarray(image).astype(np.float32)
    if kind == 1:  # the 8 x 8 blocks of strong JPEG compression
        return _compressed(image, int(rng.integers(25, 70)))
    pixels += rng.normal(0, rng.uniform(3, 14), size=pixels.shape[:2])[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    from io import BytesIO

    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _smooth(rng: Generator, rows: int, columns: int, h: int, w: int) -> np.ndarray:
    """Standard normal noise on a coarse lattice, interpolated."""
    coarse = Image.fromarray(rng.normal(0, 1, size=(rows, columns)).astype(np.float32))
    return np.asarray(coarse.resize((w, h), Image.Resampling.BICUBIC))


def _fractal(rng: Generator, h: int, w: int) -> np.ndarray:
    """Noise whose amplitude falls with frequency, about as in photographs."""
    fall = rng.uniform(0.45, 0.7)
    out = np.zeros((h, w), np.float32)
    for octave in range(5):
        cells = 2 * 2**octave
        out += fall**octave * _smooth(rng, min(cells, h) + 1, min(cells, w) + 1, h, w)
    return out


def _gradient(rng: Generator, h: int, w: int) -> np.ndarray:
    """-1 to 1, along a line or around a point."""
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    turn = rng.uniform(0, 2 * np.pi)
    if rng.random() < 0.5:
        return np.asarray(np.cos(turn) * x + np.sin(turn) * y)
    return np.asarray(np.hypot(x - np.cos(turn), y - np.sin(turn)) - 1)


def _blobs(rng: Generator, h: int, w: int) -> np.ndarray:
    """Blurred patches of colour, as of things out of focus."""
    field = np.zeros((h, w, 3), np.float32)
    y, x = np.mgrid[0 : 1 : h * 1j, 0 : 1 : w * 1j]
    for _ in range(rng.integers(3, 8)):
        cx, cy = rng.uniform(0, 1, size=2)
        rx, ry = rng.uniform(0.06, 0.35, size=2)
        far = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2
        field += (1 / (1 + np.exp(np.minimum(4 * (far - 1), 50))))[..., None] * rng.uniform(-45, 45, size=3)
    return field


def _wood(rng: Generator, h: int, w: int) -> np.ndarray:
    """Uneven stripes, upright or lying."""
    upright = rng.random() < 0.5
    a, b = (w, h) if upright else (h, w)
    grain = _smooth(rng, 2, int(rng.integers(12, 40)), b, a) + 0.6 * _smooth(rng, 4, 6, b, a)
    waves = np.sin(rng.uniform(6, 25) * np.linspace(0, 1, a) + 1.5 * _smooth(rng, 3, 3, b, a))
    field = 0.7 * grain + waves
    return field if upright else field.T
