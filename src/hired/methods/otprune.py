"""OTPrune: tokens whose distribution is nearest to that of all (arXiv 2602.20205)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hired.core.choose import in_order, patches
from hired.core.greedy import by_determinant
from hired.core.image import Image
from hired.methods.base import need


@dataclass(frozen=True)
class OTPrune:
    """Greedy log-determinant of I + 0.01 G^2, G the products of what the LLM would see, columns scaled to length 1.

    As published over the whole picture, but among patch tokens only. R^3 + K^2 R operations.
    """

    name: ClassVar[str] = "otprune"
    reads: ClassVar[tuple[str, ...]] = ("features",)

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        real = patches(image.layout)
        kernel = transported(need(image.features, "features")[real])
        return in_order(real[by_determinant(kernel, min(image.total, len(real)))], image)


def transported(features: Tensor) -> Tensor:
    """(N, N) kernel of (N, d) features."""
    columns = torch.nn.functional.normalize(features.float(), dim=0)
    products = columns @ columns.T
    return torch.eye(len(products), device=products.device) + 0.01 * products @ products.T
