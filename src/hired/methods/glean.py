"""Glean, this library's own: one ranking of all tokens, by attention and by what better-ranked ones do not show."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hired.core.choose import in_order, patches
from hired.core.detail import KELL, NEAR, odds
from hired.core.image import Image
from hired.core.novelty import novelty
from hired.methods.base import final_scores, need


@dataclass(frozen=True)
class Glean:
    """docs/glean.md tells why it works, and what each part is worth."""

    name: ClassVar[str] = "glean"
    reads: ClassVar[tuple[str, ...]] = ("last", "states", "pixels")

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens; K == `image.total` unless R is smaller. Waits for nothing."""
        real = patches(image.layout)
        scores = importance(image, real)
        scores = scores * novelty(scores, need(image.states, "states")[real])
        return in_order(real[scores.argsort(descending=True, stable=True)], image)


def importance(image: Image, real: Tensor) -> Tensor:
    """(R,) float32 what patch tokens, (R,) int64 `real`, are ranked by before novelty."""
    layout = image.layout
    scores = amplitudes(final_scores(image)[real], layout.partition[real], layout.partitions)
    return scores if layout.partitions == 1 else scores * views(image, real)


def amplitudes(scores: Tensor, partition: Tensor, partitions: int) -> Tensor:
    """(R,) square roots of attention, each over the mean of its partition.

    Args:
        scores: (R,) attention of the patch tokens.
        partition: (R,) int64.
        partitions: how many there are, the full image included.
    """
    roots = scores.clamp(min=0).sqrt()
    sums = roots.new_zeros(2, partitions)
    sums[0].scatter_add_(0, partition, roots)
    sums[1].scatter_add_(0, partition, torch.ones_like(roots))
    return roots * (sums[1] / sums[0].clamp(min=1e-30))[partition]


def views(image: Image, real: Tensor, resolved: float = KELL, near: int = NEAR) -> Tensor:
    """(R,) what patch tokens, (R,) int64 `real`, count for: between 1 / k and 1 for k sub-images.

    A place is shown twice, in the full image and in a sub-image, on a k-th of the tokens or on all. Whichever shows it
    better counts whole, and the other by the odds; a token of the full image is worth no less than its share of the
    ground that k sub-images show, and one of theirs no less than that. `resolved`, `near`: as in `odds`.
    """
    layout = image.layout
    tiles = layout.partitions - 1
    partition, cell = layout.partition[real], layout.cell[real]
    full = partition == 0
    if image.pixels is None:
        return torch.where(full, 1 / tiles, 1.0)
    shown, place = odds(image.pixels, layout, resolved, near)
    beneath = place[((partition - 1).clamp(min=0) * (len(place) // tiles) + cell).clamp(max=len(place) - 1)]
    found = shown[torch.where(full, cell, beneath)]
    return torch.where(full, found, 1 / found.clamp(min=1e-12)).clamp(min=1 / tiles, max=1.0)
