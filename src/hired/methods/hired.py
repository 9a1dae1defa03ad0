"""HiRED (arXiv 2408.10945, Algorithm 1), made exact."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hired.core.allocate import content_scores, share_out
from hired.core.choose import best, by_shares, take
from hired.core.image import Image
from hired.core.transfer import moved_to
from hired.methods.base import token_scores


@dataclass(frozen=True)
class HiRED:
    """The initial layer's CLS attention divides the budget, the final layer's picks the tokens.

    Attributes:
        alpha: the full image's share of the budget, 0..1 (paper: 0.5).
    """

    alpha: float = 0.5
    name: ClassVar[str] = "hired"
    reads: ClassVar[tuple[str, ...]] = ("first", "last")

    def shares(self, image: Image) -> Tensor:
        """(P,) int64 on the CPU: tokens of each partition, from the initial layer alone; in all min(`total`, R)."""
        first, layout, scores = image.attention.first, image.layout, None
        if first is None:
            raise RuntimeError("HiRED reads the initial layer; the encoder stage did not")
        if layout.partitions > 1:
            mass = first.cpu().view(first.shape[0], *layout.cells)
            scores = content_scores(mass, layout.rows, layout.columns)
        patches = min(image.total, layout.tokens_real)
        return share_out(patches, self.alpha, layout.capacity, scores)

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens; K == `image.total` unless R is smaller."""
        last, layout = image.attention.last, image.layout
        if last is None:
            raise RuntimeError("HiRED reads the last layer; the encoder stage did not")
        shares = self.shares(image) if image.shares is None else image.shares
        scores = token_scores(last, layout)
        if image.newlines == "drop":
            return best(scores, layout, shares)
        shares = moved_to(scores.device, shares)
        return take(by_shares(scores, layout.partition, shares), layout, image.total, image.newlines)
