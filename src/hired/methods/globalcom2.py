"""GlobalCom2: the full image tells how much of each tile to keep (Liu et al., arXiv 2501.05179)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hired.core.allocate import divide
from hired.core.choose import by_shares, take
from hired.core.image import Image
from hired.core.layout import STRUCTURE
from hired.methods.base import need


@dataclass(frozen=True)
class GlobalCom2:
    """Tiles keep in proportion to 1 + their share of the full image's attention, tokens by their tile's and the full
    image's attention together.

    The authors read the encoder's last layer, which LLaVA does not use, in front of its softmax; here it is the last
    used one, and logits are told by the logarithm of its rows up to their mean. Quotas are divided to the token.

    Attributes:
        heat: what the tiles' sums are divided by in the softmax (authors: 10).
    """

    heat: float = 10.0
    name: ClassVar[str] = "globalcom2"
    reads: ClassVar[tuple[str, ...]] = ("last",)

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens. Waits for the device once, for the quotas."""
        layout = image.layout
        logits = need(image.attention.last, "last").clamp(min=1e-12).log().mean(1)
        logits = logits - logits.mean(1, keepdim=True)
        own = layout.of_tokens(logits)
        scores = own
        weights = torch.ones(layout.partitions, dtype=torch.float64)
        if layout.partitions > 1:
            seen = logits[0, : layout.cells_per_partition].view(layout.cells)
            weights[1:] += tile_shares(seen.cpu(), layout.rows, layout.columns, self.heat)
            scores = combined(own, self._seen(image, seen), layout.partition, layout.partitions)
        capacity = torch.tensor(layout.capacity)
        shares = divide(min(image.total, layout.tokens_real), weights.clamp(min=0) * capacity, capacity)
        return take(by_shares(scores, layout.partition, shares.to(scores.device)), layout, image.total, image.newlines)

    def _seen(self, image: Image, seen: Tensor) -> Tensor:
        """(T,) what the full image says of the place that each token shows, between its cells."""
        layout, (rows, columns) = image.layout, image.layout.cells
        x0, y0, x1, y1 = layout.boxes[0]
        centres = []
        for partition in range(layout.partitions):
            left, top, right, bottom = layout.boxes[partition]
            down, across = layout.cells_of(partition)
            y = top + (torch.arange(down, dtype=torch.float64) + 0.5) * (bottom - top) / down
            x = left + (torch.arange(across, dtype=torch.float64) + 0.5) * (right - left) / across
            each = torch.stack(
                torch.meshgrid((y - y0) / (y1 - y0) * rows, (x - x0) / (x1 - x0) * columns, indexing="ij")
            )
            centres.append(each.flatten(1))
        most = max(each.shape[1] for each in centres)
        place = torch.stack([torch.nn.functional.pad(each, (0, most - each.shape[1])) for each in centres])
        values = between(seen, place.to(seen.device, seen.dtype))
        return layout.of_tokens(values)


def tile_shares(seen: Tensor, rows: Tensor, columns: Tensor, heat: float) -> Tensor:
    """(tiles,) float64: softmax of the sums that (cell rows, cell columns) `seen` has in each tile, less their mean."""
    sums = (rows @ seen.to(torch.float64) @ columns.T).flatten()
    chance = (sums / heat).softmax(0)
    return chance - chance.mean()


def between(values: Tensor, place: Tensor) -> Tensor:
    """(P, N) values between the cells of (rows, columns) `values`, at (P, 2, N) places in cells; bilinear."""
    rows, columns = values.shape
    grid = torch.stack((place[:, 1] / columns * 2 - 1, place[:, 0] / rows * 2 - 1), -1)
    found = torch.nn.functional.grid_sample(
        values[None, None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[0, 0]


def combined(own: Tensor, seen: Tensor, partition: Tensor, partitions: int) -> Tensor:
    """(T,) both scores, each of length 1 over its partition's tokens, added; the full image's stay its own."""
    real = partition != STRUCTURE
    index = partition.clamp(min=0)

    def scaled(values: Tensor) -> Tensor:
        squares = torch.where(real, values.square(), 0.0)
        length = torch.zeros(partitions, dtype=squares.dtype, device=squares.device).scatter_add_(0, index, squares)
        return values / length.sqrt().clamp(min=1e-12)[index]

    return torch.where(partition == 0, own, scaled(own) + scaled(seen))
