"""VisionZip: the most attended tokens, and others merged into a few anchors (Yang et al., arXiv 2412.04467)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hired.core.choose import in_order, patches, ranking
from hired.core.image import Image
from hired.core.merging import into_nearest
from hired.methods.base import final_keys, final_scores


@dataclass(frozen=True)
class VisionZip:
    """Dominant tokens by attention; of the rest every n-th is an anchor that takes up its likest, by the layer's keys.

    The authors give every partition as much, and keep its CLS token too; here one choice is made over the whole picture
    among its visual tokens.

    Attributes:
        contextual: share of the budget that goes to anchors (authors: 10 of 64).
    """

    contextual: float = 10 / 64
    name: ClassVar[str] = "visionzip"
    reads: ClassVar[tuple[str, ...]] = ("last", "keys", "states")

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        real = patches(image.layout)
        count = min(image.total, len(real))
        anchors = round(count * self.contextual)
        first, rest = self._parted(image, count - anchors)
        step = max(1, len(rest) // max(anchors, 1))
        chosen = (first, rest[::step][:anchors])
        # In proportion, as kept newlines may leave room for a part of them only.
        turn = torch.cat([(torch.arange(len(part), device=real.device) + 1) / max(len(part), 1) for part in chosen])
        return in_order(torch.cat(chosen)[turn.argsort(stable=True)], image)

    def merge(self, image: Image, kept: Tensor) -> Tensor:
        """(K, T) float32: each anchor plus the mean of the tokens that go into it."""
        real = patches(image.layout)
        count = min(image.total, len(real))
        rest = self._parted(image, count - round(count * self.contextual))[1]
        none = torch.zeros(image.layout.tokens_full, dtype=torch.bool, device=real.device)
        anchors, free = none.index_fill(0, rest, True), none.index_fill(0, real, True).index_fill(0, kept, False)
        # Under a small budget there may be no room for an anchor; then nothing has anywhere to go.
        some = (anchors & none.index_fill(0, kept, True)).any()
        return into_nearest(final_keys(image).mean(1), kept, anchors | ~some, free & some)

    def _parted(self, image: Image, dominant: int) -> tuple[Tensor, Tensor]:
        """The dominant tokens, the most attended first, and the others in their order."""
        ranked = ranking(final_scores(image), image.layout)
        return ranked[:dominant], ranked[dominant:].sort().values
