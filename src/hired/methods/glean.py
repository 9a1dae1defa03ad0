"""Glean, this library's own: one ranking of all tokens, by attention and by what better-ranked ones do not show."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hired.core.choose import in_order, patches
from hired.core.detail import shown_by_full
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
    if layout.partitions == 1:
        return scores
    counts = ground(image)
    full = layout.partition[real] == 0
    return scores * torch.where(full, counts[layout.cell[real].clamp(max=len(counts) - 1)], 1.0)


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


def ground(image: Image) -> Tensor:
    """(N,) what the full image's tokens count for, beside one of a sub-image: between 1 / k and 1.

    A token of the full image shows as much ground as one of each of the k sub-images together, on a k-th of the pixels.
    Where small things lie there, it counts for a k-th; the more of their contrast it keeps, the more it counts.
    """
    tiles = image.layout.partitions - 1
    if image.pixels is None:
        return torch.full((image.layout.cells_per_partition,), 1 / tiles, device=image.layout.partition.device)
    return shown_by_full(image.pixels, image.layout).clamp(min=1 / tiles, max=1.0)
