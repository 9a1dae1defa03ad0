"""HiRED (arXiv 2408.10945, Algorithm 1), made exact."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hired.core.allocate import content_scores, share_out
from hired.core.choose import by_shares, take
from hired.core.image import Image
from hired.methods.base import token_scores


@dataclass(frozen=True)
class HiRED:
    """The initial layer's CLS attention divides the budget, the final layer's picks the tokens.

    Attributes:
        alpha: the full image's share of the budget, 0..1 (paper: 0.5).
    """

    alpha: float = 0.5
    name: ClassVar[str] = "hired"
    reads_first: ClassVar[bool] = True
    reads_last: ClassVar[bool] = True

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens; K == `image.total` unless R is smaller."""
        first, last = image.attention.first, image.attention.last
        if first is None or last is None:
            raise RuntimeError("HiRED reads both layers; the encoder stage gave it fewer")
        layout, scores = image.layout, None
        if layout.partitions > 1:
            mass = first.view(first.shape[0], *layout.cells)
            scores = content_scores(mass, layout.rows, layout.columns)
        patches = min(image.total, layout.tokens_real)
        shares = share_out(patches, self.alpha, layout.capacity, scores).to(layout.partition.device)
        keys = by_shares(token_scores(last, layout), layout.partition, shares)
        return take(keys, layout, image.total, image.newlines)
