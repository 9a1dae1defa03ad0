"""HiRED (arXiv 2408.10945, Algorithm 1), made exact."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hired.core.allocate import content_scores, of_full_image, share_out
from hired.core.choose import best, by_shares, take
from hired.core.fused import kernels_for
from hired.core.image import Image
from hired.core.transfer import moved_to
from hired.methods.base import need, token_scores


@dataclass(frozen=True)
class HiRED:
    """The initial layer's CLS attention divides the budget, the final layer's picks the tokens.

    Attributes:
        alpha: the full image's share of the budget, 0..1 (paper: 0.5).
    """

    alpha: float = 0.5
    name: ClassVar[str] = "hired"
    reads: ClassVar[tuple[str, ...]] = ("first", "last")
    needs_shares: ClassVar[bool] = False

    def shares(self, image: Image) -> Tensor:
        """(P,) int64 on the CPU: tokens of each partition, from the initial layer alone; in all min(`total`, R)."""
        first, layout, scores = need(image.attention.first, "first"), image.layout, None
        if layout.partitions > 1:
            scores = content_scores(first.cpu().view(-1, *layout.cells), layout.rows, layout.columns)
        return share_out(min(image.total, layout.tokens_real), self.alpha, layout.capacity, scores)

    def _shares(self, image: Image) -> Tensor:
        """The same beside the layout, without waiting for the device."""
        first, layout, scores = need(image.attention.first, "first"), image.layout, None
        if layout.partitions > 1:
            scores = content_scores(first.view(-1, *layout.cells), *layout.overlaps)
        return share_out(min(image.total, layout.tokens_real), self.alpha, layout.capacity, scores)

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens; K == `image.total` unless R is smaller."""
        layout, total = image.layout, min(image.total, image.layout.tokens_real)
        scores = token_scores(need(image.attention.last, "last"), layout)
        if image.newlines == "drop" and image.shares is None and (kernels := kernels_for(layout)):
            first = need(image.attention.first, "first")
            full = of_full_image(total, self.alpha, layout.capacity)
            mass = first.float().sum(0) if layout.partitions > 1 else None
            kept: Tensor = kernels.kept(scores, layout, total=total, full=full, mass=mass)
            return kept
        shares = self._shares(image) if image.shares is None else image.shares
        if image.newlines == "drop":
            return best(scores, layout, shares, total)
        shares = moved_to(scores.device, shares)
        return take(by_shares(scores, layout.partition, shares), layout, image.total, image.newlines)
