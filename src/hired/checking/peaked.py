"""How peaked the attention is that ranks tokens, and whether it peaks at writing: told, and not judged.

A random encoder spreads it evenly, or peaks anywhere. One trained on pictures with text should look at text; many look
at some blank places as well ("registers", Darcet et al., ICLR 2024, arXiv 2309.16588).
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from hired import prompts
from hired.checking.pictures import Box, page, side_of, sizes
from hired.core.layout import STRUCTURE, Layout
from hired.errors import UnsupportedModelError
from hired.methods.base import token_scores
from hired.reduction import encode, plan

__all__ = ["Peaked", "measure", "small_models"]

_SEEDS = range(4)
_TOP = 5


@dataclass(frozen=True)
class Peaked:
    """Means over pictures; 0..1.

    Attributes:
        mass: Share of the last layer's attention that the top fifth of each partition's tokens has; 0.2 where it is
            even.
        ink: Share of those tokens that show writing.
        blind: Share of all tokens that show writing: what `ink` would be for tokens drawn by chance.
        pictures: How many.
    """

    mass: float
    ink: float
    blind: float
    pictures: int


def measure(model: Any, processor: Any) -> Peaked:
    """Reads the last layer on pages of this module's, four of each shape but the smallest.

    Args:
        model: A supported model, in eval mode.
        processor: Its processor.

    Raises:
        HiredError: The model does not take such pictures, or its encoder is not read.
    """
    side, found = side_of(model), []
    with torch.inference_mode():
        for place, size in enumerate(sizes(model)[:-1]):
            for seed in _SEEDS:
                image, boxes = page(size, side, 100 * place + seed)
                words = prompts.prompt(processor, "What is written here?")
                made = plan(model, prompts.inputs(model, processor, [words], [image]), 2, images=[image])
                attention = encode(made, everything=True).attention[0].last
                if attention is not None and boxes:
                    found.append(_of(token_scores(attention.cpu(), made.layouts[0]), made.layouts[0], boxes))
    if not found:
        raise UnsupportedModelError("the layer that ranks tokens was not read")
    mass, ink, blind = (round(statistics.mean(values), 4) for values in zip(*found, strict=True))
    return Peaked(mass, ink, blind, len(found))


def _of(scores: Tensor, layout: Layout, boxes: list[Box]) -> tuple[float, float, float]:
    """(mass, ink, blind) of one picture, the partitions together."""
    tokens = layout.partition.tolist()
    shows = torch.tensor([part != STRUCTURE and _inked(layout, row, boxes) for row, part in enumerate(tokens)])
    mass, top, inked, count = 0.0, 0, 0, 0
    whole = float(scores[layout.partition != STRUCTURE].sum())
    for partition in range(layout.partitions):
        here = (layout.partition == partition).nonzero().flatten()
        best = here[scores[here].argsort(descending=True, stable=True)[: -(-len(here) // _TOP)]]
        mass, top = mass + float(scores[best].sum()), top + len(best)
        inked, count = inked + int(shows[best].sum()), count + len(here)
    return mass / whole, inked / top, float(shows.sum()) / count


def _inked(layout: Layout, row: int, boxes: list[Box]) -> bool:
    """Whether a token's rectangle touches writing."""
    x0, y0, x1, y1 = layout.token_box(row)
    return any(x0 < right and left < x1 and y0 < low and top < y1 for left, top, right, low in boxes)


def small_models() -> dict[str, Peaked]:
    """The same of the two small trained models here, by name, as ``benchmarks/peaked.py`` wrote it."""
    told = json.loads(resources.files("hired.checking").joinpath("peaked.json").read_text(encoding="utf-8"))
    return {row["model"]: Peaked(row["mass"], row["ink"], row["blind"], row["pictures"]) for row in told["results"]}
