"""Shortening of everything that has one entry a token, and its padding."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hired.reduction.plan import Padding, Positions

IGNORED_LABEL = -100


def cut(
    data: Mapping[str, Any],
    stay: Tensor,
    dropped: list[int],
    padding: Padding,
    *,
    pad_id: int,
    positions: Positions,
) -> dict[str, Tensor]:
    """Cuts every per-token entry of `data` alike and pads the rows again on the side they were padded.

    Args:
        data: the inputs; entries of the shape of `input_ids` (batch, length) are cut, and `position_ids` of
            (..., batch, length).
        stay: (batch, length) bool, False for placeholders of dropped tokens.
        dropped: how many False each row has, known beforehand.
        padding: how the rows are padded now.
        pad_id: id to pad with where the inputs show none.
        positions: "consecutive" numbers the tokens anew, "original" keeps their places in the full prompt.

    Returns:
        The entries that changed. `attention_mask` is added where rows now differ in length or
        positions have gaps.
    """
    ids: Tensor = data["input_ids"]
    given: Tensor | None = data.get("attention_mask")
    mask = torch.ones_like(ids) if given is None else given
    # Where nothing is padded yet: generate wants padding on the left, a loss does not care.
    left = "labels" not in data if padding.pad_id is None else any(start > 0 for start in padding.starts)
    lengths = [length - gone for length, gone in zip(padding.lengths, dropped, strict=True)]
    width = max(lengths)
    key = stay.to(torch.uint8) if left else (~stay).to(torch.uint8)
    order = torch.argsort(key, dim=1, stable=True)
    order = order[:, -width:] if left else order[:, :width]
    uneven = len(set(lengths)) > 1
    vacant = ~stay.gather(1, order) if uneven else None
    filler = pad_id if padding.pad_id is None else padding.pad_id

    result = {
        name: _filled(value.gather(1, order), vacant, _filler(name, filler))
        for name, value in data.items()
        if isinstance(value, Tensor) and value.shape == ids.shape and name != "position_ids"
    }
    # Without a mask transformers takes gaps in the positions for several sequences packed into one.
    if given is None and (uneven or positions == "original"):
        result["attention_mask"] = torch.ones_like(order) if vacant is None else (~vacant).to(torch.int64)
    explicit = data.get("position_ids")
    if positions == "original" or explicit is not None:
        result["position_ids"] = _positions(explicit, mask, order, vacant, positions)
    return result


def _filled(values: Tensor, vacant: Tensor | None, filler: int) -> Tensor:
    """`values` (..., batch, width) with `filler` where no token stands; None for nowhere."""
    return values if vacant is None else values.masked_fill(vacant, filler)


def _filler(name: str, pad_id: int) -> int:
    """What stands in a padded place of the entry `name`."""
    return {"labels": IGNORED_LABEL, "input_ids": pad_id}.get(name, 0)


def _positions(explicit: Tensor | None, mask: Tensor, order: Tensor, vacant: Tensor | None, positions: str) -> Tensor:
    """(batch, kept length) positions, or (..., batch, kept length) as the caller gave them."""
    if positions == "original":
        places = (mask.long().cumsum(-1) - 1).clamp(min=0) if explicit is None else explicit
        return _filled(places.gather(-1, order.expand(*places.shape[:-1], -1)), vacant, 0)
    kept = _filled(mask.gather(1, order), vacant, 0)
    return (kept.long().cumsum(-1) - 1).clamp(min=0)
