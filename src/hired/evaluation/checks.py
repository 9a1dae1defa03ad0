"""What is dropped to see whether a model minds missing tokens at all, HiRED aside."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hired.core.layout import STRUCTURE, Layout
from hired.evaluation.samples import Sample

__all__ = ["blank", "blank_half", "no_newlines"]


def no_newlines(layout: Layout) -> Tensor:
    """Kept rows (K,) int64: every patch token, no newline."""
    return (layout.partition != STRUCTURE).nonzero().flatten()


def blank_half(layout: Layout, sample: Sample) -> Tensor:
    """Kept rows (K,) int64: all but a random half of the tokens on blank paper, drawn by the page's seed."""
    candidates = blank(layout, sample)
    generator = np.random.default_rng([sample.seed, 1])
    gone = generator.permutation(candidates.numpy())[: candidates.numel() // 2]
    stay = torch.ones(layout.tokens_full, dtype=torch.bool)
    stay[torch.from_numpy(gone)] = False
    return stay.nonzero().flatten()


def blank(layout: Layout, sample: Sample) -> Tensor:
    """Rows (K,) int64 of the patch tokens whose pixel box touches no writing."""
    found = []
    for row, (partition, cell) in enumerate(zip(layout.partition.tolist(), layout.cell.tolist(), strict=True)):
        if partition == STRUCTURE:
            continue
        x0, y0, x1, y1 = layout.cell_box(partition, cell)
        if not any(x0 < right and left < x1 and y0 < low and top < y1 for left, top, right, low in sample.ink):
            found.append(row)
    return torch.tensor(found, dtype=torch.int64)
