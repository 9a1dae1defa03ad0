"""Partitions of unlike length in one sequence, so that layers compute nothing for what was left out."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from hired.core.transfer import all_moved_to, moved_to

_PADDING = -1

Varlen = Callable[..., Tensor]
"""torch's attention over sequences of unlike length in one call, `torch.nn.attention.varlen.varlen_attn`."""


@cache
def _varlen() -> Varlen | None:
    """None where torch has none, or one that takes no scale."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    found: Any = varlen_attn
    return found if "scale" in inspect.signature(varlen_attn).parameters else None


def varlen_for(query: Tensor) -> Varlen | None:
    """The same, None also where its kernel, flash attention, does not take what is given.

    Args:
        query: (1, heads, S, d).
    """
    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16) or query.shape[-1] % 8:
        return None
    return _varlen() if torch.cuda.get_device_capability(query.device) >= (8, 0) else None


@dataclass(frozen=True)
class _Slots:
    """Padded places for g partitions of at most m tokens.

    Attributes:
        place: (g, m) int64, the packed place of every slot; 0 for padding.
        mask: (g, 1, 1, m) bool, False for padding; None where nothing is padded.
    """

    place: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, place: Tensor, padded: bool) -> "_Slots":
        """From places with `_PADDING` among them, or none of it."""
        return cls(place.clamp(min=0), (place != _PADDING)[:, None, None]) if padded else cls(place, None)

    def take(self, heads: Tensor) -> Tensor:
        """(1, heads, S, d) as (g, heads, m, d); what stands in padding means nothing."""
        return heads[0][:, self.place].transpose(0, 1)


@dataclass(frozen=True)
class Packed:
    """Where the tokens of each partition stand in a packed sequence of S tokens.

    Everything that works token by token runs on the (1, S, d) sequence as it is; attention alone is padded. Partitions
    less than half as long as others stand in a group of their own there, so that little of it is spent on padding; the
    groups are at most as many as a partition's tokens have binary digits.

    Attributes:
        whole: slots of all n partitions, M of each.
        slot: (S,) int64, the slot of each packed token in the flattened (n, M).
        groups: slots of partitions of about one length.
        order: (S,) int64, the slot of each packed token in the flattened groups, one after the other.
        edges: (n + 1,) int32, where each partition starts in the sequence, and the end.
        longest: tokens of the longest partition.
    """

    whole: _Slots
    slot: Tensor
    groups: tuple[_Slots, ...]
    order: Tensor
    edges: Tensor
    longest: int

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> "Packed":
        """For partitions of the given lengths, standing one after the other."""
        starts = list(accumulate(lengths, initial=0))
        whole, slot = _slots(lengths, starts)
        alike = [(max(lengths) // length).bit_length() for length in lengths]
        groups, orders, start = [], [], 0
        for value in set(alike):
            chosen = [index for index, of in enumerate(alike) if of == value]
            group, place = _slots([lengths[index] for index in chosen], [starts[index] for index in chosen])
            groups.append(group)
            orders.append(torch.stack((group.flatten()[place], place + start)))
            start += group.numel()
        places, found = torch.cat(orders, 1)
        order = torch.empty_like(found).scatter_(0, places, found)

        padded = [bool((place == _PADDING).any()) for place in (whole, *groups)]
        slot, order, *moved = all_moved_to(device, slot, order, whole, *groups)
        first, *others = map(_Slots.of, moved, padded)
        edges = moved_to(device, torch.tensor(starts, dtype=torch.int32))
        return cls(first, slot, tuple(others), order, edges, max(lengths))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Attention inside each partition: (1, heads, S, d) each, to (1, S, heads, d)."""
        varlen = varlen_for(query)
        if varlen is not None:
            q, k, v = (heads[0].transpose(0, 1) for heads in (query, key, value))
            return varlen(q, k, v, self.edges, self.edges, self.longest, self.longest, scale=scaling)[None]
        mixed = []
        for group in self.groups:
            q, k, v = group.take(query), group.take(key), group.take(value)
            mixed.append(scaled_dot_product_attention(q, k, v, attn_mask=group.mask, scale=scaling))
        return torch.cat([part.transpose(1, 2).flatten(0, 1) for part in mixed])[self.order][None]


def _slots(lengths: list[int], starts: list[int]) -> tuple[Tensor, Tensor]:
    """((g, m) places of partitions that start at `starts`, `_PADDING` behind them; which are filled, flattened)."""
    width = torch.arange(max(lengths))[None]
    filled = width < torch.tensor(lengths)[:, None]
    first = torch.tensor(starts[: len(lengths)])
    place = torch.where(filled, first[:, None] + width, _PADDING)
    return place, filled.flatten().nonzero().flatten()
