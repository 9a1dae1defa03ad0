"""SCOPE: saliency times what is not covered yet (Deng et al., arXiv 2510.24214)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hired.core.choose import in_order, patches
from hired.core.greedy import by_coverage
from hired.core.image import Image
from hired.core.similarity import cosine
from hired.methods.base import final_scores, need


@dataclass(frozen=True)
class Scope:
    """Greedy: the token whose attention times newly covered similarity is largest.

    The authors give every partition as much; here one choice is made over the whole picture. For R patch tokens and K
    kept, R^2 d + K R^2 operations.

    Attributes:
        power: exponent of the attention (authors: 1).
    """

    power: float = 1.0
    name: ClassVar[str] = "scope"
    reads: ClassVar[tuple[str, ...]] = ("last", "states")

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        real = patches(image.layout)
        states, scores = need(image.states, "states")[real], final_scores(image)[real]
        count = min(image.total, len(real))
        return in_order(real[by_coverage(scores.pow(self.power), cosine(states), count)], image)
