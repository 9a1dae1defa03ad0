"""PruMerge: the most attended tokens, each with its likest others added (Shang et al., arXiv 2403.15388)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hired.core.choose import evenly_first, in_order, patches, ranking
from hired.core.image import Image
from hired.core.merging import with_neighbours
from hired.methods.base import final_keys, final_scores


@dataclass(frozen=True)
class PruMerge:
    """Top tokens by attention take up those with the likest keys; one more token is the sum of all that were dropped.

    The authors' number of tokens follows from outliers of the attention; here it is the budget, over the whole picture.
    They read the encoder's last layer, which LLaVA does not use, as if it had one head; here it is the last used one
    with its own heads.
    """

    name: ClassVar[str] = "prumerge"
    reads: ClassVar[tuple[str, ...]] = ("last", "keys", "states")

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens; the last one stands for the rest."""
        return in_order(self._order(image), image)

    def merge(self, image: Image, kept: Tensor) -> Tensor:
        """(K, T) float32: each token plus its likest, times their attention; the rest's token is their sum."""
        scores, size = final_scores(image), image.layout.tokens_full
        real = patches(image.layout)
        patch = torch.zeros(size, dtype=torch.bool, device=real.device).index_fill(0, real, True)
        weights = with_neighbours(torch.where(patch, scores, 0.0), final_keys(image).flatten(1), kept, patch)
        # A kept newline takes up nothing.
        alone = torch.zeros_like(weights).scatter_(1, kept[:, None], 1.0)
        weights = torch.where(patch[kept][:, None], weights, alone)
        # The least important of the kept tokens stands for itself and all that were dropped.
        place = torch.full((size,), -1, device=real.device)
        order = self._order(image)
        place[order] = torch.arange(len(order), device=real.device)
        least = place[kept].argmax()
        dropped = patch.index_fill(0, kept, False).index_fill(0, kept[least][None], True)
        rest = torch.where(dropped, scores, 0.0)
        return weights.index_copy(0, least[None], rest[None])

    def _order(self, image: Image) -> Tensor:
        """Patch tokens, the most important first, as many as the budget allows at most."""
        return ranking(final_scores(image), image.layout)[: image.total]


@dataclass(frozen=True)
class PruMergePlus(PruMerge):
    """PruMerge with most of the budget on evenly spaced tokens.

    Attributes:
        spread: evenly spaced tokens for each one chosen by attention (authors: 3).
    """

    spread: int = 3
    name: ClassVar[str] = "prumerge+"

    def _order(self, image: Image) -> Tensor:
        """Those by attention first, then evenly spaced ones."""
        order = super()._order(image)
        first = order[: -(-len(order) // (1 + self.spread))]
        real = patches(image.layout)
        chosen = torch.zeros(image.layout.tokens_full, dtype=torch.uint8, device=real.device).index_fill(0, first, 1)
        rest = real[chosen[real].argsort(stable=True)][: len(real) - len(first)]
        return torch.cat((first, evenly_first(rest, len(order) - len(first))))[: len(order)]
