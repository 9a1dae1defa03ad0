"""What HiRED is compared with at equal tokens; none of them looks at the picture."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hired.core.choose import evenly_first, in_order, patches
from hired.core.image import Image


@dataclass(frozen=True)
class Uniform:
    """Every n-th patch token of the image ("spatial" in the paper's table)."""

    name: ClassVar[str] = "uniform"
    reads: ClassVar[tuple[str, ...]] = ()

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        real = patches(image.layout)
        return in_order(evenly_first(real, min(image.total, real.numel())), image)


@dataclass(frozen=True)
class Random:
    """Patch tokens drawn without replacement, from a seed; the same for images of the same layout."""

    seed: int = 0
    name: ClassVar[str] = "random"
    reads: ClassVar[tuple[str, ...]] = ()

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        real = patches(image.layout)
        generator = torch.Generator().manual_seed(self.seed)
        return in_order(real[torch.randperm(real.numel(), generator=generator).to(real.device)], image)


@dataclass(frozen=True)
class Overview:
    """Tokens of the full image only, evenly spaced where the budget is smaller; never more than N tokens."""

    name: ClassVar[str] = "overview"
    reads: ClassVar[tuple[str, ...]] = ()
    exact: ClassVar[bool] = False

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens, K <= N."""
        elsewhere = (image.layout.partition != 0).to(torch.uint8)
        full = torch.argsort(elsewhere, stable=True)[: image.layout.capacity[0]]
        count = min(image.total, full.numel())
        return evenly_first(full, count)[:count].sort().values
