"""One image as a method sees it."""

from dataclasses import dataclass

from torch import Tensor

from hired.core.budget import Newlines
from hired.core.layout import Layout


@dataclass(frozen=True)
class Attention:
    """Attention of one image, float32, None where the method asked for none.

    The CLS token's rows over the N tokens of a partition; in encoders without one, what each token receives.

    Attributes:
        first: (heads, N) of the full image in the initial layer.
        last: (P, heads, N) of every partition in the layer whose output the model uses; filled up behind the end where
            partitions have unlike many tokens.
    """

    first: Tensor | None = None
    last: Tensor | None = None


@dataclass(frozen=True)
class Image:
    """One image to select tokens of.

    Attributes:
        layout: where its tokens come from, on the device where the result is wanted.
        attention: the rows the method asked for.
        total: tokens to keep, fewer than `layout.tokens_full`.
        newlines: what becomes of row-end newlines.
        shares: (P,) int64 on the CPU, tokens of each partition, where the method told them before (`Method.shares`).
    """

    layout: Layout
    attention: Attention
    total: int
    newlines: Newlines
    shares: Tensor | None = None
