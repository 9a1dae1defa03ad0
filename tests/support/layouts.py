"""Layouts in plain Python, written from the definition of LLaVA-NeXT and not from the library."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import torch

from hired.core.layout import STRUCTURE, Layout
from hired.families.llava_next import LlavaNext
from tests.support import models

CELLS = models.SIDE // models.PATCH


@dataclass
class Plain:
    """What `slow_layout` works out: (partition, row, column) of every token, None for a newline."""

    grid: tuple[int, int]
    tokens: list[tuple[int, int, int] | None]
    shown: tuple[int, int]
    canvas: tuple[int, int]


def best_grid(width: int, height: int, pinpoints: list[list[int]]) -> tuple[int, int]:
    """(canvas height, canvas width): most of the picture shown, then least waste, then first in the list."""
    best, choice = None, (0, 0)
    for h, w in pinpoints:
        scale = min(w / width, h / height)
        seen = min(int(width * scale) * int(height * scale), width * height)
        quality = (seen, -(h * w - seen))
        if best is None or quality > best:
            best, choice = quality, (h, w)
    return choice


def padding(width: int, height: int, down: int, across: int) -> tuple[int, int]:
    """Rows and columns of padding cells that the model takes off either end of a canvas of down x across cells."""
    # As many whole cells off both ends as fit half of the padding.
    if Fraction(width, height) > Fraction(across, down):
        return (down - int(Fraction(height * across, width))) // 2, 0
    return 0, (across - int(Fraction(width * down, height))) // 2


def slow_layout(width: int, height: int, pinpoints: list[list[int]] = models.PINPOINTS) -> Plain:
    """The visual tokens of a picture as LLaVA-NeXT hands them to its LLM."""
    canvas_h, canvas_w = best_grid(width, height, pinpoints)
    rows, columns = canvas_h // models.SIDE, canvas_w // models.SIDE
    scale = min(Fraction(canvas_w, width), Fraction(canvas_h, height))
    shown = (min(ceil(width * scale), canvas_w), min(ceil(height * scale), canvas_h))
    tokens: list[tuple[int, int, int] | None] = [(0, r, c) for r in range(CELLS) for c in range(CELLS)]
    across, down = columns * CELLS, rows * CELLS
    skip_y, skip_x = padding(width, height, down, across)
    for y in range(skip_y, down - skip_y):
        for x in range(skip_x, across - skip_x):
            tokens.append((1 + (y // CELLS) * columns + x // CELLS, y % CELLS, x % CELLS))
        tokens.append(None)
    return Plain((rows, columns), tokens, shown, (canvas_w, canvas_h))


def layout_of(width: int, height: int) -> Layout:
    """The library's layout of a picture for the tiny LLaVA-NeXT."""
    model = models.shared("llava_next")
    most = 1 + max(h * w for h, w in models.PINPOINTS) // models.SIDE**2
    data = {
        "pixel_values": torch.zeros(1, most, 3, models.SIDE, models.SIDE),
        "image_sizes": torch.tensor([[height, width]]),
    }
    return LlavaNext().layouts(model, data, None)[0]


def plain_tokens(layout: Layout) -> list[tuple[int, int, int] | None]:
    """A library layout in the form of `Plain.tokens`."""
    pairs = zip(layout.partition.tolist(), layout.cell.tolist(), strict=True)
    return [None if p == STRUCTURE else (p, *divmod(c, layout.cells[1])) for p, c in pairs]
