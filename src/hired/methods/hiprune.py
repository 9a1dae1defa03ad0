"""HiPrune: anchors of a middle layer with their neighbours, the rest by the last (Liu et al., arXiv 2508.00553)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hired.core.choose import in_order, patches, ranking
from hired.core.image import Image
from hired.core.layout import Layout
from hired.methods.base import need, token_scores


@dataclass(frozen=True)
class HiPrune:
    """Attention received: the top tokens of a middle layer and the four beside each, then the top of the last layer.

    The authors give every partition as much; here one choice is made over the whole picture. Theirs wraps around at the
    ends of a row; here a token at the edge has fewer neighbours.

    Attributes:
        anchors: share of the budget that goes to anchors and neighbours (authors: 0.1).
    """

    anchors: float = 0.1
    name: ClassVar[str] = "hiprune"
    reads: ClassVar[tuple[str, ...]] = ("middle", "received")

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        layout, real = image.layout, patches(image.layout)
        middle = token_scores(need(image.attention.middle, "middle"), layout)
        deep = token_scores(need(image.attention.received, "received"), layout).to(torch.float64)
        count = round(min(image.total, len(real)) * self.anchors / 5)
        top = ranking(middle, layout)[:count]
        near = with_neighbours(top, layout)
        deep = deep / deep[real].amax().clamp(min=1e-30)
        deep[near] += 2.0
        return in_order(ranking(deep, layout), image)


def with_neighbours(tokens: Tensor, layout: Layout) -> Tensor:
    """Indices of (n,) patch tokens and of those beside, above and below them in their partitions, with repetitions."""
    size = max(rows * columns for rows, columns in map(layout.cells_of, range(layout.partitions)))
    where = torch.full((layout.partitions, size), -1, dtype=torch.int64, device=tokens.device)
    real = patches(layout)
    where[layout.partition[real], layout.cell[real]] = real
    wide = torch.tensor([layout.cells_of(partition)[1] for partition in range(layout.partitions)]).to(tokens.device)
    high = torch.tensor([layout.cells_of(partition)[0] for partition in range(layout.partitions)]).to(tokens.device)
    partition, cell = layout.partition[tokens], layout.cell[tokens]
    row, column = cell // wide[partition], cell % wide[partition]
    found = [tokens]
    for down, right in ((0, -1), (0, 1), (-1, 0), (1, 0)):
        r, c = row + down, column + right
        inside = (r >= 0) & (c >= 0) & (r < high[partition]) & (c < wide[partition])
        beside = where[partition, torch.where(inside, r * wide[partition] + c, 0)]
        found.append(torch.where(inside & (beside >= 0), beside, tokens))
    return torch.cat(found)
