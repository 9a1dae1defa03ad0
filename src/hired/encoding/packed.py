"""Partitions of unlike length in one sequence, so that layers compute nothing for what was left out."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Packed:
    """Where the tokens of each partition stand in a packed sequence of S tokens.

    Everything that works token by token runs on the (1, S, d) sequence as it is; attention alone is padded, to
    the longest partition.

    Attributes:
        place: (n, M) int64, the packed place of every slot of n partitions of at most M tokens; 0 for padding.
        slot: (S,) int64, the slot of each packed token in the flattened (n, M).
        mask: (n, 1, 1, M) bool, False for padding.
    """

    place: Tensor
    slot: Tensor
    mask: Tensor

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> "Packed":
        """For partitions of the given lengths, standing one after the other."""
        counts = torch.tensor(lengths)
        filled = torch.arange(max(lengths))[None] < counts[:, None]
        starts = counts.cumsum(0) - counts
        place = (starts[:, None] + torch.arange(max(lengths))[None]) * filled
        slot = filled.flatten().nonzero().flatten()
        return cls(place.to(device), slot.to(device), filled[:, None, None].to(device))

    def unpack(self, heads: Tensor) -> Tensor:
        """(1, heads, S, d) as (n, heads, M, d); what stands in padding means nothing."""
        return heads[0][:, self.place].transpose(0, 1)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Attention inside each partition: (n, heads, M, d) each, to (1, S, heads, d)."""
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=self.mask, scale=scaling)
        return mixed.transpose(1, 2).flatten(0, 1)[self.slot][None]
