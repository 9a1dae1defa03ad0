"""HoloV: quotas for runs of tokens by their attention and variety (Zou et al., arXiv 2510.02912)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hired.core.allocate import divide
from hired.core.choose import in_order, patches
from hired.core.image import Image
from hired.core.similarity import unit
from hired.methods.base import final_scores, need


@dataclass(frozen=True)
class HoloV:
    """The sequence of tokens is cut into runs; each gets a quota by its score, and its most attended tokens stay.

    What a run cannot hold of its quota is lost in the authors' code; here the others get it.

    Attributes:
        runs: how many (authors: 16).
    """

    runs: int = 16
    name: ClassVar[str] = "holov"
    reads: ClassVar[tuple[str, ...]] = ("last", "features")

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens. Waits for the device once, for the runs' scores."""
        real = patches(image.layout)
        scores = final_scores(image)[real]
        features = need(image.features, "features")[real]
        parts = [len(part) for part in torch.tensor_split(torch.arange(len(real)), min(self.runs, len(real)))]
        weights = run_scores(scores, features, parts).cpu()
        shares = quotas(weights, torch.tensor(parts), min(image.total, len(real)))
        order = []
        for start, size, share in zip(_starts(parts), parts, shares.tolist(), strict=True):
            order.append(start + scores[start : start + size].argsort(descending=True, stable=True)[:share])
        chosen = torch.cat(order)
        return in_order(real[chosen[scores[chosen].argsort(descending=True, stable=True)]], image)


def run_scores(scores: Tensor, features: Tensor, parts: list[int]) -> Tensor:
    """(runs,) float32: mean of 1000 attention + 0.09 variance of the similarities in the run, scaled to the former."""
    found = []
    for mine, rows in zip(torch.split(scores, parts), torch.split(features, parts), strict=True):
        size = len(mine)
        if size == 1:
            found.append(mine[0])
            continue
        alike = unit(rows) @ unit(rows).T
        alike.fill_diagonal_(0.0)
        mean = alike.sum(1, keepdim=True) / (size - 1)
        variety = (alike - mean).square().sum(1) / (size - 1)
        scaled = 1000 * mine
        found.append((scaled + 0.09 * scaled.abs().mean() / (variety.abs().mean() + 1e-6) * variety).mean())
    return torch.stack(found)


def quotas(weights: Tensor, capacity: Tensor, total: int) -> Tensor:
    """(runs,) int64: each share's floor, one more for the largest, what a full run cannot hold to the others."""
    weights = weights / (weights.sum() + 1e-6)
    given = (weights * total).floor().to(torch.int64)
    more = weights.argsort(descending=True, stable=True)[: max(0, min(total - int(given.sum()), len(weights)))]
    given[more] += 1
    given = torch.minimum(given, capacity)
    left = total - int(given.sum())
    return given + divide(left, weights.clamp(min=0).to(torch.float64), capacity - given) if left > 0 else given


def _starts(parts: list[int]) -> list[int]:
    return [sum(parts[:index]) for index in range(len(parts))]
