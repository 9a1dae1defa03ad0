"""VisPruner: half by attention, half by being unlike the others (Zhang et al., arXiv 2412.01818)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hired.core.choose import in_order, patches
from hired.core.duplicates import without_duplicates
from hired.core.image import Image
from hired.core.similarity import cosine
from hired.methods.base import final_scores, need


@dataclass(frozen=True)
class VisPruner:
    """The most attended tokens, and of the rest those that are left when duplicates have gone round by round.

    The authors give every partition as much; here one choice is made over the whole picture. About R^3 / 32 operations.

    Attributes:
        important: share of the budget that goes by attention (authors: 0.5).
    """

    important: float = 0.5
    name: ClassVar[str] = "vispruner"
    reads: ClassVar[tuple[str, ...]] = ("last", "states")

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        real = patches(image.layout)
        count = min(image.total, len(real))
        ranked = final_scores(image)[real].argsort(descending=True, stable=True)
        first = ranked[: int(count * self.important)]
        similarity = cosine(need(image.states, "states")[real])
        rest = without_duplicates(similarity, ranked[len(first) :], count - len(first))
        return in_order(real[torch.cat((first, rest))], image)
