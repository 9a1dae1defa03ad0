"""What HiRED is compared with at equal tokens; none of them looks at the picture."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hired.core.choose import take
from hired.core.image import Image
from hired.core.layout import STRUCTURE


def _take(image: Image, order: Tensor) -> Tensor:
    """The tokens kept when the patch tokens go in `order` (their indices, first kept first)."""
    keys = torch.full((image.layout.tokens_full,), torch.inf, dtype=torch.float64, device=order.device)
    keys[order] = torch.arange(order.numel(), dtype=torch.float64, device=order.device)
    return take(keys, image.layout, image.total, image.newlines)


def _patches(image: Image) -> Tensor:
    """(R,) indices of the patch tokens, without waiting for the device to count them."""
    structure = (image.layout.partition == STRUCTURE).to(torch.uint8)
    return torch.argsort(structure, stable=True)[: image.layout.tokens_real]


def _evenly_first(tokens: Tensor, count: int) -> Tensor:
    """`tokens` with `count` evenly spaced ones in front, the others after them in their order.

    The evenly spaced ones are ordered so that every prefix of them is evenly spaced too (by the fractional parts
    of multiples of the golden ratio).
    """
    total = tokens.numel()
    index = torch.arange(count, device=tokens.device)
    spread = torch.argsort((index.to(torch.float64) * 0.6180339887498949) % 1.0, stable=True)
    step = (index * total + total // 2) // max(count, 1)
    chosen = torch.zeros(total, dtype=torch.uint8, device=tokens.device)
    chosen[step] = 1
    rest = torch.argsort(chosen, stable=True)[: total - count]
    return torch.cat((tokens[step[spread]], tokens[rest]))


@dataclass(frozen=True)
class Uniform:
    """Every n-th patch token of the image ("spatial" in the paper's table)."""

    name: ClassVar[str] = "uniform"
    reads_first: ClassVar[bool] = False
    reads_last: ClassVar[bool] = False

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        real = _patches(image)
        return _take(image, _evenly_first(real, min(image.total, real.numel())))


@dataclass(frozen=True)
class Random:
    """Patch tokens drawn without replacement, from a seed; the same for images of the same layout."""

    seed: int = 0
    name: ClassVar[str] = "random"
    reads_first: ClassVar[bool] = False
    reads_last: ClassVar[bool] = False

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        real = _patches(image)
        generator = torch.Generator().manual_seed(self.seed)
        return _take(image, real[torch.randperm(real.numel(), generator=generator).to(real.device)])


@dataclass(frozen=True)
class Overview:
    """Tokens of the full image only, evenly spaced where the budget is smaller; never more than N tokens."""

    name: ClassVar[str] = "overview"
    reads_first: ClassVar[bool] = False
    reads_last: ClassVar[bool] = False

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens, K <= N."""
        elsewhere = (image.layout.partition != 0).to(torch.uint8)
        full = torch.argsort(elsewhere, stable=True)[: image.layout.capacity[0]]
        count = min(image.total, full.numel())
        return _evenly_first(full, count)[:count].sort().values
