"""Shortening of everything that has one entry a token, and its padding."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hired.core.transfer import moved_to
from hired.errors import InputsError
from hired.reduction.entries import FILLERS, IGNORED_LABEL, per_token
from hired.reduction.positions import CONSECUTIVE, ORIGINAL, apart, closed_up, restarts
from hired.reduction.rows import Rows


@dataclass(frozen=True)
class Order:
    """Where the tokens of each shortened row come from.

    Attributes:
        index: (batch, width) int64, the column of the new part that each place shows.
        vacant: (batch, width) bool, True for places that show nothing; None where there are none.
    """

    index: Tensor
    vacant: Tensor | None

    def take(self, values: Tensor, filler: int | float) -> Tensor:
        """`values` (..., batch, length) of the shortened rows, with `filler` at vacant places."""
        taken = values.gather(-1, self.index.expand(*values.shape[:-1], -1))
        return taken if self.vacant is None else taken.masked_fill(self.vacant, filler)


def order(rows: Rows, stay: Tensor, dropped: list[int], *, left: bool) -> Order:
    """The places of the kept tokens: each row keeps its own, and gives up padding at one end.

    Rows stay aligned at the other end: padded on both sides, they keep the padding at their right.

    Args:
        rows: the rows.
        stay: (batch, length) bool, False for placeholders of dropped tokens.
        dropped: how many False each row has, known beforehand.
        left: whether padding stands in front of the tokens.
    """
    available = [stay.shape[1] - gone for gone in dropped]
    spare = rows.lead if left else rows.trail
    width = max(most - padding for most, padding in zip(available, spare, strict=True))
    key = stay.to(torch.uint8) if left else (~stay).to(torch.uint8)
    index = torch.argsort(key, dim=1, stable=True)
    index = index[:, -width:] if left else index[:, :width]
    return Order(index, ~stay.gather(1, index) if min(available) < width else None)


def leans_left(rows: Rows, *, freely: bool) -> bool:
    """Whether shortened rows are padded in front of their tokens: as they were, or `freely` where they were not."""
    if rows.behind:
        return True
    return rows.padded_in_front if rows.padded else freely


@dataclass(frozen=True)
class Beforehand:
    """A cut that is known before the choice, as the placeholders of a picture are all alike (`Rows.alike`) and follow
    each other.

    Attributes:
        stay: (batch, length) bool on the CPU, False for as many of each picture's placeholders as it loses tokens.
        order: where the tokens of the shortened rows come from, beside the inputs.
        dropped: tokens that each picture loses.
        per_row: tokens that each row loses.
    """

    stay: Tensor
    order: Order
    dropped: list[int]
    per_row: list[int]

    @classmethod
    def of(
        cls, rows: Rows, tokens: list[int], dropped: list[int], *, labelled: bool, device: torch.device
    ) -> "Beforehand | None":
        """The cut of rows; None where other tokens stand between a picture's, such as tags between its tiles.

        Args:
            rows: the rows.
            tokens: how many each picture has.
            dropped: how many it loses.
            labelled: there are labels.
            device: where the inputs are.
        """
        stay, places = np.ones(rows.here.shape, dtype=bool), rows.places
        for count, end, gone in zip(tokens, accumulate(tokens), dropped, strict=True):
            if gone and places[end - 1] - places[end - count] != count - 1:
                return None
            stay.reshape(-1)[places[end - gone : end]] = False
        shown, per_row = torch.from_numpy(stay), (~stay).sum(axis=1).tolist()
        made = order(rows, shown, per_row, left=leans_left(rows, freely=not labelled))
        vacant = None if made.vacant is None else moved_to(device, made.vacant)
        return cls(shown, Order(moved_to(device, made.index), vacant), dropped, per_row)


def cut(
    data: Mapping[str, Any],
    stay: Tensor,
    dropped: list[int],
    rows: Rows,
    *,
    made: Order | None,
    pad_id: int,
    positions: str,
    grid: bool,
    apart_as: torch.dtype | None,
) -> dict[str, Tensor]:
    """Cuts every per-token entry of `data` alike and pads the rows again on the side they were padded.

    Args:
        data: the inputs; entries of the shape of `input_ids` (batch, length) are cut, `attention_mask`, and
            `position_ids` of (..., batch, length).
        stay: (batch, length) bool of the new part, False for placeholders of dropped tokens.
        dropped: how many False each row has, known beforehand.
        rows: how the rows stand.
        made: where the kept tokens come from, where that is known already.
        pad_id: id to pad with where the inputs show none.
        positions: "consecutive" closes the gaps, "original" keeps their places in the full prompt.
        grid: positions tell the place in the picture (M-RoPE).
        apart_as: dtype of a mask by which the model can keep sequences in one row apart, None if it cannot.

    Returns:
        The entries that changed. `attention_mask` is added where rows now differ in length, positions have gaps, or
        the mask was inferred.

    Raises:
        InputsError: packed rows with original positions in a model that cannot be told of both.
    """
    given: Tensor | None = data.get("attention_mask")
    explicit: Tensor | None = data.get("position_ids")
    told = None if explicit is None else explicit[..., -stay.shape[1] :]
    packed = None if told is None or rows.mask is not None else _packed(told, grid)
    if made is None:
        # Generate wants padding on the left, a loss does not care. Packed rows have no mask: what stands behind all
        # of their tokens is seen by none.
        freely = "labels" not in data and packed is None
        made = order(rows, stay, dropped, left=leans_left(rows, freely=freely))
    filler = pad_id if rows.pad_id is None else rows.pad_id
    found: dict[str, Tensor] = {}
    for name, value in per_token(data).items():
        new = value[:, rows.start :]
        taken = (
            _following(new, made)
            if name == "shift_labels"
            else made.take(new, filler if name == "input_ids" else FILLERS.get(name, 0))
        )
        found[name] = torch.cat((value[:, : rows.start], taken), 1) if rows.start else taken
    if rows.mask is not None:
        taken = made.take(rows.mask, 0)
        found["attention_mask"] = (
            torch.cat((given[:, : rows.behind], taken), 1) if rows.behind and given is not None else taken
        )
    elif packed is None and (made.vacant is not None or positions == ORIGINAL):
        # Without a mask transformers takes gaps in the positions for several sequences packed into one.
        ones = torch.ones_like(made.index)
        found["attention_mask"] = ones if made.vacant is None else ones.masked_fill(made.vacant, 0)
    if told is not None or positions == ORIGINAL:
        found["position_ids"] = _positions(told, given, rows, stay, made, positions)
    if packed is not None and positions == ORIGINAL and not grid:
        if apart_as is None:
            raise InputsError(
                'positions="original" leaves gaps, by which this model tells packed sequences apart: use "consecutive"'
            )
        found["attention_mask"] = apart(made.take(packed, -1), apart_as)
    return found


def _packed(told: Tensor, grid: bool) -> Tensor | None:
    """(batch, length) the number of each token's sequence, None where no row holds more than one. Waits for the device.

    Args:
        told: positions of inputs without a mask.
        grid: positions tell the place in the picture; then the first of four axes counts the text.
    """
    text = told if told.dim() == 2 and not grid else told[0] if told.dim() == 3 and told.shape[0] == 4 else None
    if text is None:
        return None
    sequence = restarts(text).cumsum(-1)
    return sequence if bool(sequence[:, -1].any()) else None


def _following(labels: Tensor, made: Order) -> Tensor:
    """`shift_labels`, what is predicted at each kept token: the label of the next kept one.

    Args:
        labels: (batch, length) of all tokens.
        made: the kept ones.
    """
    own = torch.cat((torch.full_like(labels[:, :1], IGNORED_LABEL), labels[:, :-1]), 1)
    behind = labels[:, -1].where(made.index[:, -1] == labels.shape[1] - 1, IGNORED_LABEL)
    if made.vacant is not None:
        behind = behind.masked_fill(made.vacant[:, -1], IGNORED_LABEL)
    return torch.cat((made.take(own, IGNORED_LABEL)[:, 1:], behind[:, None]), 1)


def _positions(
    told: Tensor | None, given: Tensor | None, rows: Rows, stay: Tensor, made: Order, positions: str
) -> Tensor:
    """(..., batch, width) positions of the shortened rows.

    Args:
        told: what the caller gave, of the new part.
        given: the caller's mask.
        rows, stay, made, positions: as in `cut`.
    """
    if told is None:
        mask = rows.mask if given is None else given
        counted = torch.ones_like(stay) if mask is None else mask
        told = (counted.long().cumsum(-1) - 1).clamp(min=0)[:, -stay.shape[1] :]
    elif told.dim() == 3 and told.shape[0] == 4:
        # The first axis counts the text, by which packed sequences are told apart: no gaps there.
        told = torch.cat((closed_up(told[0], rows.mask, stay)[None], told[1:]))
    elif told.dim() == 2 and positions == CONSECUTIVE:
        told = closed_up(told, rows.mask, stay)
    return made.take(told, 0)
