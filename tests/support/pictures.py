"""Pictures and prompts for the tiny models."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from tests.support import models

Size = tuple[int, int]

UNLIKE: tuple[Size, ...] = ((64, 64), (90, 31), (30, 80), (70, 50), (20, 20))
"""(width, height) of pictures that LLaVA-NeXT cuts into different grids, some with padded canvases."""


def noise(size: Size, seed: int = 0) -> Image.Image:
    """A picture of random pixels."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


TEXTS = ("what is a?", "b:", "total c?", "d")


def inputs(
    name: str,
    rows: Sequence[Sequence[Size] | None],
    *,
    texts: Sequence[str] = TEXTS,
    side: str = "left",
    seed: int = 0,
    first: int = 0,
) -> Any:
    """The processor's output for one row of pictures of the given sizes per prompt; None or () is a text-only row.

    `first`: the number of the first row, where some rows of a batch are made apart from it.
    """
    pictures: list[Any] = []
    prompts = []
    case = models.ALL[name]
    for index, row in enumerate(rows, first):
        row = row or ()
        made = [noise(size, seed + 100 * index + place) for place, size in enumerate(row)]
        pictures += [made] if case.by_prompt else made
        # Text before, between and after the pictures.
        prompts.append("ab" * (index + 1) + "".join(case.mark + "\n" + "c" * place for place in range(len(row))))
        prompts[-1] += texts[(index - first) % len(texts)]
    processor = models.processor(name, side)
    padding = {"padding": True} if len(rows) > 1 else {}
    return processor(text=prompts, images=pictures if any(rows) else None, return_tensors="pt", **padding)
