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
    """A way of choosing tokens. `reads` names what it needs, of `hired.core.image.READINGS`; nothing else is computed.

    Three more things a method may have:

    - `shares(image) -> Tensor`, (P,) int64 on the CPU, where it knows from the initial layer alone how many tokens each
      partition keeps: then the encoder does not finish partitions without a share, and can be given a budget of its
      own; `shares_of` calls it. `select` finds what it returned in `image.shares`, but with `needs_shares = False`,
      by which `select` tells that it works them out where they are None: a GPU is then not waited for.
    - `merge(image, kept) -> Tensor`, (K, T) float32, where kept tokens take up dropped ones: the features of the K kept
      tokens are these sums of all T. Read by `merged_of`.
    - `exact = False` where K is not known from the layout and the total alone.
    """

    name: ClassVar[str]
    reads: ClassVar[tuple[str, ...]]

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens, among the image's `layout.tokens_full`."""
        ...


def told_early(method: Method, device: torch.device) -> bool:
    """Whether a method is asked for shares in front of its choice where nothing else needs them.

    Args:
        method: the method.
        device: of what it reads.
    """
    return hasattr(method, "shares") and (device.type == "cpu" or getattr(method, "needs_shares", True))


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


def merged_of(method: Method, image: Image, kept: Tensor) -> Tensor | None:
    """(K, T) float32 of which tokens each kept one is the sum, None where a kept token stays what it is."""
    merge: Callable[[Image, Tensor], Tensor] | None = getattr(method, "merge", None)
    return None if merge is None else merge(image, kept)


def need(reading: Tensor | None, name: str) -> Tensor:
    """A reading of an image.

    Raises:
        RuntimeError: it is not there, as nobody read that layer.
    """
    if reading is None:
        raise RuntimeError(f"the method reads {name!r}; the encoder stage did not read that layer")
    return reading


def final_scores(image: Image) -> Tensor:
    """(T,) float32 attention to every token in the last used layer, mean over heads."""
    rows = need(image.attention.last, "last")
    return token_scores(rows, image.layout) / rows.shape[1]


def final_keys(image: Image) -> Tensor:
    """(T, heads, d) float32 keys of the last used layer; in families without, (T, 1, d) of the features."""
    keys, layout = image.attention.keys, image.layout
    if keys is None:
        return need(image.states, "states").float()[:, None]
    return keys.permute(0, 3, 1, 2)[layout.partition.clamp(min=0), layout.cell.clamp(min=0)]


def token_scores(rows: Tensor, layout: Layout) -> Tensor:
    """Importance of every token of the layout: (P, heads, N) attention rows summed over heads, (T,) float32.

    The value at `STRUCTURE` tokens means nothing.
    """
    return layout.of_tokens(rows.float().sum(1))
