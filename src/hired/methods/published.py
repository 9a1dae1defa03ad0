"""HiRED as the authors' code does it, for reproducing its tables."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hired.core.image import Image
from hired.core.layout import STRUCTURE
from hired.core.published import select_image


@dataclass(frozen=True)
class Published:
    """The authors' selection; see `hired.core.published` for its quirks. Budgets are not met to the token.

    Choices that fall on padding are absent from packed features, and newlines are always dropped.
    """

    alpha: float = 0.5
    name: ClassVar[str] = "published"
    reads: ClassVar[tuple[str, ...]] = ("first", "last")
    exact: ClassVar[bool] = False

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens, K <= `image.total`. Waits for the device to know K."""
        first, last = image.attention.first, image.attention.last
        if first is None or last is None:
            raise RuntimeError("the published variant reads both layers; the encoder stage gave it fewer")
        partition, cell = image.layout.partition, image.layout.cell
        chosen = select_image(first, last, image.total, self.alpha)
        kept = chosen[partition.clamp(min=0), cell.clamp(min=0)] & (partition != STRUCTURE)
        return kept.nonzero().flatten()
