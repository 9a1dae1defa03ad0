"""Which tokens are kept: an order of importance, and a budget met to the token."""

import torch
from torch import Tensor

from hired.core.budget import Newlines
from hired.core.image import Image
from hired.core.layout import STRUCTURE, Layout
from hired.core.transfer import moved_to


def best(scores: Tensor, layout: Layout, shares: Tensor, total: int) -> Tensor:
    """The tokens of highest score of each partition, as many as its share. Waits for nothing.

    Args:
        scores: (T,) importance; ties go to the earlier token.
        layout: the image, on the device of `scores`.
        shares: (P,) int64, at most `layout.capacity`.
        total: the sum of `shares`.

    Returns:
        Sorted (K,) int64 indices into the image's untouched tokens, K being `total`.
    """
    slots = layout.slots
    each = scores[slots.index]
    if slots.vacant is not None:
        each = each.masked_fill(slots.vacant, -torch.inf)
    order = each.argsort(dim=1, descending=True, stable=True)
    dropped = slots.rank >= moved_to(scores.device, shares)[:, None]
    kept = slots.token.gather(1, order).masked_fill(dropped, layout.tokens_full)
    return kept.flatten().sort().values[:total]


def _by_partition(scores: Tensor, partition: Tensor) -> tuple[Tensor, Tensor]:
    """(T,) indices of first `STRUCTURE`, then partition after partition, each from its best token; their partitions."""
    by_score = torch.argsort(scores, descending=True, stable=True)
    found, order = torch.sort(partition[by_score], stable=True)
    return by_score[order], found


def ranks(scores: Tensor, partition: Tensor) -> Tensor:
    """Place of every token inside its partition, the most important first.

    Args:
        scores: (T,) importance; ties go to the earlier token.
        partition: (T,) int64, `STRUCTURE` for tokens that take no part.

    Returns:
        (T,) int64: 0 for the best token of each partition. Undefined for `STRUCTURE` tokens.
    """
    order, _ = _by_partition(scores, partition)
    counts = torch.zeros(int(partition.numel()) + 1, dtype=torch.int64, device=partition.device)
    counts.scatter_add_(0, partition + 1, torch.ones_like(partition))
    starts = counts.cumsum(0) - counts
    place = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
    return place - starts[partition + 1]


def by_shares(scores: Tensor, partition: Tensor, shares: Tensor) -> Tensor:
    """Order of importance over the patch tokens whose first `shares.sum()` tokens are the partitions' shares.

    Tokens of different partitions are interleaved by rank / share, so that a shorter prefix cuts every
    partition in proportion. Each partition's tokens always stand in the order of their scores.

    Args:
        scores: (T,) importance of the tokens.
        partition: (T,) int64, `STRUCTURE` for newlines.
        shares: (P,) int64, tokens each partition keeps.

    Returns:
        (T,) float64 keys, lower is kept earlier; infinite for newlines.
    """
    real = partition != STRUCTURE
    place = (ranks(scores, partition) + 1).to(torch.float64)
    share = shares.to(torch.float64)[partition.clamp(min=0)]
    # A partition without a share comes after everything else, still best tokens first.
    key = torch.where(share > 0, place / share.clamp(min=1.0), place * partition.numel())
    return torch.where(real, key, torch.full_like(key, torch.inf))


def take(keys: Tensor, layout: Layout, total: int, newlines: Newlines) -> Tensor:
    """The tokens kept under a budget of `total`, met to the token.

    Args:
        keys: (T,) order of importance, lower is kept earlier; infinite for newlines.
        layout: the image, on the device of `keys`.
        total: tokens to keep, less than `layout.tokens_full`.
        newlines: "drop" keeps min(total, R) patch tokens and no newline (as published); "keep" keeps, within
            the same total, the newline of every row that keeps a token.

    Returns:
        Sorted (K,) int64 indices into the image's untouched tokens; K is known from `layout` and `total` alone.
    """
    order = torch.argsort(keys, stable=True)
    if newlines == "drop":
        return order[: min(total, layout.tokens_real)].sort().values
    return _take_with_newlines(order[: layout.tokens_real], layout, total)


def in_order(order: Tensor, image: Image) -> Tensor:
    """The tokens kept when patch tokens go in `order`.

    Args:
        order: int64 indices of patch tokens, the first kept first: all, or at least as many as the budget allows.
        image: the image, on the device of `order`.

    Returns:
        Sorted (K,) int64 indices into the image's untouched tokens.
    """
    layout = image.layout
    patch = (layout.partition != STRUCTURE).to(order.device)
    # Those that the order does not name come last.
    keys = torch.where(patch, float(layout.tokens_full), torch.inf).to(torch.float64)
    keys[order] = torch.arange(order.numel(), dtype=torch.float64, device=order.device)
    return take(keys, layout, image.total, image.newlines)


def patches(layout: Layout) -> Tensor:
    """(R,) indices of the patch tokens, without waiting for the device to count them."""
    structure = (layout.partition == STRUCTURE).to(torch.uint8)
    return torch.argsort(structure, stable=True)[: layout.tokens_real]


def ranking(scores: Tensor, layout: Layout) -> Tensor:
    """(R,) indices of the patch tokens by their (T,) `scores`, the best first; ties go to the earlier token."""
    real = patches(layout)
    return real[scores[real].argsort(descending=True, stable=True)]


def evenly_first(tokens: Tensor, count: int) -> Tensor:
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


def _take_with_newlines(order: Tensor, layout: Layout, total: int) -> Tensor:
    """Longest prefix of `order` that fits `total` together with its rows' newlines, filled up to the token."""
    line, partition = layout.line, layout.partition
    lines = layout.tokens_full + 1
    line_of = line[order] + 1  # 0: a token whose row has no newline
    place = torch.arange(order.numel(), device=order.device)
    first = torch.full((lines,), order.numel(), dtype=torch.int64, device=order.device)
    first.scatter_reduce_(0, line_of, place, "amin")
    opens_line = (first[line_of] == place) & (line_of > 0)
    fits = (1 + opens_line.to(torch.int64)).cumsum(0) <= total
    spent = torch.where(fits, 1 + opens_line.to(torch.int64), torch.zeros_like(place)).sum()
    # The prefix may end one short, before a token that would open a row: the next token of an open row, then.
    opened = torch.zeros(lines, dtype=torch.bool, device=order.device)
    opened.scatter_(0, torch.where(fits, line_of, torch.zeros_like(line_of)), True)
    opened[:1].fill_(True)  # not by index, which would wait for the device; so below
    cheap = ~fits & opened[line_of]
    extra = torch.argmax(cheap.to(torch.uint8))
    fits = fits | ((place == extra) & cheap & (spent < total))
    keep = torch.zeros(layout.tokens_full, dtype=torch.bool, device=order.device)
    keep.scatter_(0, order, fits)
    newline = (partition == STRUCTURE) & opened[line + 1] & (line != STRUCTURE)
    keep |= newline
    # No open row has a token left: the one token still owed is the newline of the next row.
    short = keep.sum() < total
    spare = torch.argmax(((partition == STRUCTURE) & ~keep).to(torch.uint8))
    keep |= short & (torch.arange(keep.numel(), device=keep.device) == spare)
    return torch.argsort((~keep).to(torch.uint8), stable=True)[:total]
