"""The pictures that a checkpoint is checked on: drawn here, of unlike shapes, with known content.

Sizes go with the encoder's own, so that a picture is cut, shrunk or padded as others would be.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["SHAPES", "Box", "page", "painted", "side_of", "sizes", "structured"]

Box = tuple[float, float, float, float]

SHAPES = ((2.0, 2.0), (2.8, 1.0), (1.0, 2.5), (2.2, 1.6), (0.65, 0.65))
"""(width, height) of the pictures, in sides of what the encoder sees at a time."""
_SIDE, _MOST, _LEAST = 448, 512, 28
_INK = ((20, 20, 24), (24, 36, 110), (120, 24, 24))
_WORDS = ("TOTAL 4172", "DATE 0918", "ROOM 35", "GATE B7", "No. 60214")


def side_of(model: Any) -> int:
    """Side of what the encoder sees at a time, in pixels: its `image_size`; 448 where it takes any size."""
    found = getattr(model.config.vision_config, "image_size", None)
    side = min(found) if isinstance(found, list | tuple) and found else found
    return min(max(side, _LEAST), _MOST) if isinstance(side, int) else _SIDE


def sizes(model: Any) -> list[tuple[int, int]]:
    """(width, height) in pixels of the pictures for a model."""
    side = side_of(model)
    return [(max(16, round(width * side)), max(16, round(height * side))) for width, height in SHAPES]


def structured(size: tuple[int, int]) -> NDArray[np.uint8]:
    """(height, width, 3) pixels of slow gradients, so that resizing keeps what they show."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack([40 + 60 * x, 50 + 60 * y, 60 + 40 * (x + y) / 2], -1).astype(np.uint8)


def painted(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The picture with the pixels inverted whose middle lies in a box."""
    x0, y0, x1, y1 = (round(edge) for edge in box)
    result = pixels.copy()
    result[y0:y1, x0:x1] = 255 - result[y0:y1, x0:x1]
    return result


def page(size: tuple[int, int], side: int, seed: int) -> tuple[Image.Image, list[Box]]:
    """Plain paper with a few lines of small print, and the boxes of these.

    Args:
        size: (width, height) in pixels.
        side: of what the encoder sees at a time; letters are about a fourteenth of it high.
        seed: of what stands where.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    image = Image.new("RGB", size, tuple(int(value) for value in rng.integers(228, 252, 3)))
    pen, letters = ImageDraw.Draw(image), ImageFont.load_default(max(9, round(side / 14)))
    boxes: list[Box] = []
    for _ in range(60):
        words = _WORDS[int(rng.integers(len(_WORDS)))]
        left, top, right, bottom = letters.getbbox(words)
        across, down = int(right - left), int(bottom - top)
        if across > width or down > height or len(boxes) == 4:
            break
        x = int(rng.integers(0, width - across, endpoint=True))
        y = int(rng.integers(0, height - down, endpoint=True))
        box = (float(x), float(y), float(x + across), float(y + down))
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] + 4 and b[1] < box[3] + 4 for b in boxes):
            continue
        pen.text((x - left, y - top), words, font=letters, fill=_INK[int(rng.integers(len(_INK)))])
        boxes.append(box)
    return image, boxes
