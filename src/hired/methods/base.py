"""What a method is: a small class that says which attention it reads and which tokens it keeps."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from hired.core.budget import Newlines
from hired.core.image import Attention, Image
from hired.core.layout import Layout
from hired.core.transfer import on_host


class Method(Protocol):
    """A way of choosing tokens. `reads_first` and `reads_last` say which attention rows it needs.

    A method that knows from the initial layer how many tokens each partition keeps may also have
    `shares(image) -> Tensor`, (P,) int64 on the CPU: then the encoder does not finish partitions without a share, and
    can be given a budget of its own; `shares_of` calls it. `select` finds what it returned in `image.shares`.
    """

    name: ClassVar[str]
    reads_first: ClassVar[bool]
    reads_last: ClassVar[bool]

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens, among the image's `layout.tokens_full`."""
        ...


@torch.no_grad()
def shares_of(
    method: Method,
    layouts: Sequence[Layout],
    firsts: Sequence[Tensor | None],
    totals: Sequence[int | None],
    newlines: Newlines,
) -> list[Tensor | None] | None:
    """What `method.shares` says of several images; None where the method has no `shares`.

    A budget is divided on the CPU: these are a few numbers an image, and a GPU would take longer to be told what to do
    with them. Waits for the device once, and only where an image is cut.

    Args:
        method: the method.
        layouts: one an image.
        firsts: the first rows of all images, or None for all.
        totals: tokens to keep of each image; None for one that stays as it is, whose shares are None.
        newlines: what becomes of row-end newlines.
    """
    divide: Callable[[Image], Tensor] | None = getattr(method, "shares", None)
    if divide is None:
        return None
    known = [first for first in firsts if first is not None]
    if known and any(layout.partitions > 1 for layout in layouts):
        firsts = on_host(known)
    return [
        None if total is None else divide(Image(layout, Attention(first), total, newlines))
        for layout, total, first in zip(layouts, totals, firsts, strict=True)
    ]


def token_scores(rows: Tensor, layout: Layout) -> Tensor:
    """Importance of every token of the layout: (P, heads, N) attention rows summed over heads, (T,) float32.

    The value at `STRUCTURE` tokens means nothing.
    """
    return layout.of_tokens(rows.float().sum(1))
