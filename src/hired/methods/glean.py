"""Glean, this library's own: one ranking of all tokens, by attention and by what better-ranked ones do not show."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hired.core.choose import in_order, patches
from hired.core.image import Image
from hired.core.novelty import novelty
from hired.methods.base import final_scores, need


@dataclass(frozen=True)
class Glean:
    """docs/glean.md tells why it works, and what each part is worth."""

    name: ClassVar[str] = "glean"
    reads: ClassVar[tuple[str, ...]] = ("last", "states")

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens; K == `image.total` unless R is smaller. Waits for nothing."""
        layout, real = image.layout, patches(image.layout)
        scores = amplitudes(final_scores(image)[real], layout.partition[real], layout.partitions)
        scores = scores * novelty(scores, need(image.states, "states")[real])
        return in_order(real[scores.argsort(descending=True, stable=True)], image)


def amplitudes(scores: Tensor, partition: Tensor, partitions: int) -> Tensor:
    """(R,) square roots of attention, each over the mean of its partition; the full image's over the sub-images too.

    Args:
        scores: (R,) attention of the patch tokens.
        partition: (R,) int64.
        partitions: how many there are, the full image included.
    """
    roots = scores.clamp(min=0).sqrt()
    sums = roots.new_zeros(2, partitions)
    sums[0].scatter_add_(0, partition, roots)
    sums[1].scatter_add_(0, partition, torch.ones_like(roots))
    above = roots * (sums[1] / sums[0].clamp(min=1e-30))[partition]
    # A token of the full image shows as much ground as one of each sub-image together, in as many times fewer pixels.
    return torch.where(partition == 0, above / max(partitions - 1, 1), above)
