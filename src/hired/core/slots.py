"""The tokens of every partition side by side, for choices that are made in each partition apart."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hired.core.transfer import moved_to


@dataclass(frozen=True, eq=False)
class Slots:
    """P rows of C slots, C being the most tokens that a partition holds (T tokens in all).

    Attributes:
        token: (P, C) int64, the tokens of each partition in their order; T in vacant slots, which stand behind them.
        index: the same with some token in vacant slots, to look up.
        vacant: (P, C) bool; None where no slot is vacant.
        rank: (C,) int64, 0 to C - 1.
        capacity: (P,) int64, tokens of each partition.
    """

    token: Tensor
    index: Tensor
    vacant: Tensor | None
    rank: Tensor
    capacity: Tensor

    @classmethod
    def of(cls, partition: Tensor, capacity: tuple[int, ...]) -> "Slots":
        """From the partition of every token, (T,) int64, negative for tokens of none. Waits for the device."""
        device, most = partition.device, max(capacity, default=0)
        rank = torch.arange(most, device=device)
        held = torch.tensor(capacity, dtype=torch.int64, device=device)
        filled = rank < held[:, None]
        token = torch.full(filled.shape, partition.numel(), device=device)
        order = partition.argsort(stable=True)
        token[filled] = order[partition.numel() - sum(capacity) :]
        if min(capacity, default=0) == most:
            return cls(token, token, None, rank, held)
        return cls(token, token.masked_fill(~filled, 0), ~filled, rank, held)

    def to(self, device: torch.device) -> "Slots":
        """The same on another device."""
        vacant = None if self.vacant is None else moved_to(device, self.vacant)
        parts = (self.token, self.index, self.rank, self.capacity)
        token, index, rank, capacity = (moved_to(device, part) for part in parts)
        return Slots(token, index, vacant, rank, capacity)
