"""TOPS, its first stage: attention, diversity and coverage together."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hired.core.choose import in_order, patches
from hired.core.image import Image
from hired.core.similarity import cosine
from hired.methods.base import final_scores, need


@dataclass(frozen=True)
class Tops:
    """Greedy by attention + diversity / 2 + coverage / 2, each divided by its mean over the tokens that are left.

    Its second stage drops tokens inside the LLM and is not done here. K R^2 operations.
    """

    name: ClassVar[str] = "tops"
    reads: ClassVar[tuple[str, ...]] = ("last", "features")

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        real = patches(image.layout)
        features, scores = need(image.features, "features"), final_scores(image)[real]
        similarity = cosine(features[real.to(features.device)]).to(scores.device)
        return in_order(real[combined(scores, similarity, min(image.total, len(real)))], image)


def combined(scores: Tensor, similarity: Tensor, count: int) -> Tensor:
    """(count,) int64 tokens in the order they were chosen: the most attended, then by the three terms."""
    left = torch.ones_like(scores)
    cover = torch.zeros_like(scores)
    likest = torch.full_like(scores, -1.0)

    def beside_mean(term: Tensor) -> Tensor:
        return term / ((term * left).sum() / left.sum().clamp(min=1)).clamp(min=1e-12)

    value, chosen = scores, []
    for _ in range(count):
        best = torch.where(left > 0, value, -torch.inf).argmax()[None]
        chosen.append(best[0])
        left.index_fill_(0, best, 0.0)
        row = similarity.index_select(0, best)[0]
        cover, likest = torch.maximum(cover, row), torch.maximum(likest, row)
        gain = (similarity - cover).clamp(min=0).sum(1)
        value = beside_mean(scores) + 0.5 * beside_mean(1 - likest) + 0.5 * beside_mean(gain)
    return torch.stack(chosen)
