"""CDPruner: a determinantal point process conditioned on the question (Zhang et al., arXiv 2506.10967)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hired.core.choose import in_order, patches
from hired.core.greedy import by_determinant
from hired.core.image import Image
from hired.core.similarity import cosine, unit
from hired.methods.base import need


@dataclass(frozen=True)
class CDPruner:
    """Greedy search for tokens that are relevant to the question and unlike each other.

    The authors compare images and question in the space of a CLIP text tower, which checkpoints of these families do
    not hold; here it is the LLM's own space: projected tokens and the embeddings of the question's words. With the
    authors' sign: what is *less* like the text counts as relevant. One choice over the whole picture. R^2 d + K^2 R
    operations.
    """

    name: ClassVar[str] = "cdpruner"
    reads: ClassVar[tuple[str, ...]] = ("features", "question")

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        real = patches(image.layout)
        features = need(image.features, "features")[real]
        relevant = relevance(features, need(image.question, "question"))
        order = by_determinant(conditioned(cosine(features), relevant), min(image.total, len(real)))
        return in_order(real[order], image)


def relevance(features: Tensor, text: Tensor) -> Tensor:
    """(N,) float32 of (N, d) tokens to (M, d) texts: minus the mean cosine, scaled to 0..1."""
    told = -(unit(features) @ unit(text).T).mean(1)
    return (told - told.min() + 1e-6) / (told.max() - told.min()).clamp(min=1e-12)


def conditioned(similarity: Tensor, quality: Tensor) -> Tensor:
    """The kernel q_i S_ij q_j."""
    return quality[:, None] * similarity * quality
