"""DivPrune: tokens as far from each other as can be (Alvar et al., arXiv 2503.02175)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hired.core.choose import in_order, patches
from hired.core.greedy import by_distance
from hired.core.image import Image
from hired.core.similarity import cosine
from hired.methods.base import need


@dataclass(frozen=True)
class DivPrune:
    """Farthest-point choice among what the LLM would see, by cosine distance; no attention.

    As published over the whole picture, but among patch tokens only: newlines do not compete. R^2 d + K R operations.
    """

    name: ClassVar[str] = "divprune"
    reads: ClassVar[tuple[str, ...]] = ("features",)

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        real = patches(image.layout)
        distance = 1 - cosine(need(image.features, "features")[real])
        return in_order(real[by_distance(distance, min(image.total, len(real)))], image)
