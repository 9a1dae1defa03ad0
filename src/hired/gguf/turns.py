"""Conversations: what is asked after an answer, behind the pictures and the answers so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hired.errors import InputsError
from hired.reduction.entries import LABELS, per_token
from hired.reduction.reduced import ReducedInputs

__all__ = ["follow_up"]


def follow_up(reduced: ReducedInputs, ids: Tensor) -> ReducedInputs:
    """The inputs of a further turn: the same pictures, and the conversation so far with a question behind it.

    `LLM.generate` computes of it what its cache does not hold.

    Args:
        reduced: what `hired.reduce` returned for one prompt, or this function for the turn before.
        ids: (1, length) whole numbers that begin with `input_ids` of `reduced`: what `generate` returned, and the ids
            of what is asked now.

    Returns:
        A mapping like `reduced`.

    Raises:
        InputsError: ids of another conversation.
    """
    before = reduced.get("input_ids") if isinstance(reduced, Mapping) else None
    if not isinstance(before, Tensor) or before.dim() != 2 or len(before) != 1:
        raise InputsError("follow_up takes what hired.reduce returned for one prompt")
    length = before.shape[1]
    if (
        not isinstance(ids, Tensor)
        or ids.dim() != 2
        or len(ids) != 1
        or not torch.equal(ids[:, :length].to(before), before)
    ):
        raise InputsError("ids must be (1, length) and begin with the input_ids of the turn before")
    more = ids.shape[1] - length
    data: dict[str, Any] = dict(reduced)
    for name, value in per_token(data).items():
        data[name] = torch.cat((value, value.new_zeros(1, more)), 1)
    for name in LABELS:
        data.pop(name, None)
    data["input_ids"] = ids.to(before)
    mask = data.get("attention_mask")
    if mask is not None:
        data["attention_mask"] = torch.cat((mask, mask.new_ones(1, more)), 1)
    places = data.get("position_ids")
    if places is not None:
        behind = torch.arange(1, more + 1, device=places.device, dtype=places.dtype) + places.max()
        data["position_ids"] = torch.cat((places, behind.expand(*places.shape[:-1], more)), -1)
    return ReducedInputs(data, model=reduced.model if isinstance(reduced, ReducedInputs) else None)
