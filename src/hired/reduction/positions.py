"""Positions of kept tokens, where they have to be told."""

import torch
from torch import Tensor

CONSECUTIVE, ORIGINAL = "consecutive", "original"


def restarts(positions: Tensor) -> Tensor:
    """(batch, length) bool, True where the positions (batch, length) do not go on by one: there another of several
    sequences packed into a row begins, as transformers tells them apart in inputs without a mask.
    """
    return torch.diff(positions, prepend=positions[:, :1] - 1, dim=-1) != 1


def closed_up(positions: Tensor, mask: Tensor | None, stay: Tensor) -> Tensor:
    """The positions of a row's tokens once those that do not stay have gone: each sequence goes on without gaps.

    A row may hold several sequences: where positions fall, another begins, and is numbered from 0. Where they
    jump, the jump stays.

    Args:
        positions: (batch, length) int64, of all tokens.
        mask: (batch, length), 0 for places that do not count; None if all do.
        stay: (batch, length) bool.

    Returns:
        (batch, length) int64; what stands at masked places, or at those that do not stay, means nothing.
    """
    valid = torch.ones_like(stay) if mask is None else mask.bool()
    place = torch.arange(positions.shape[1], device=positions.device).expand_as(positions)
    # Of each place, the last valid one in front of it.
    before = torch.where(valid, place, -1).cummax(1).values.roll(1, 1)
    before[:, 0] = -1
    previous = positions.gather(1, before.clamp(min=0))
    fall = valid & (before >= 0) & (positions <= previous)
    gone = (valid & ~stay).long().cumsum(1)
    # What the sequence of each place began with: its first position, but of a row's first, which keeps it, and the
    # tokens gone before it.
    begin = torch.where(fall, place, 0).cummax(1).values
    anew = begin > 0
    offset = torch.where(anew, positions.gather(1, begin), 0)
    already = torch.where(anew, gone.gather(1, (begin - 1).clamp(min=0)), 0)
    return (positions - offset - (gone - already)).clamp(min=0)


def apart(sequence: Tensor, dtype: torch.dtype) -> Tensor:
    """(batch, 1, length, length) additive mask in which tokens attend backwards inside of their own sequence alone.

    Args:
        sequence: (batch, length), the number of each token's sequence.
        dtype: of the mask, that of the model.
    """
    place = torch.arange(sequence.shape[1], device=sequence.device)
    seen = (sequence[:, :, None] == sequence[:, None]) & (place[:, None] >= place)
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
