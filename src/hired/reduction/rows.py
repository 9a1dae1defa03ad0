"""How the rows of a batch stand, read before the model runs, in one wait for the device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hired.caching import cache_in
from hired.core.transfer import on_host
from hired.errors import InputsError
from hired.reduction.entries import IGNORED_LABEL, LABELS, per_token

Array = NDArray[Any]
"""What is read is small and on the host, where numpy takes a tenth of the time of tensors."""


@dataclass(frozen=True)
class Rows:
    """The rows of a batch of L columns, some of which a cache may hold already; only the others, the new ones, are cut.

    Attributes:
        start: columns of `input_ids` in front of the new ones.
        behind: tokens in the cache.
        counts: image placeholders of every row, of its new part.
        here: (batch, L - start) bool, where they are.
        alike: whether the entries of all placeholders are known to be the same, so that of those that follow each other
            nothing tells which are left out, but their number.
        mask: (batch, L - start) mask of the new part beside `input_ids`, None where nothing is masked.
        lead, trail: padding at both ends of every row's new part: places that are masked, hold no placeholder, and
            have no label. Only they may go.
        empty: rows of padding alone, which have all of their places in both.
        pad_id: the id that stands in padding, None where nothing is padded.
    """

    start: int
    behind: int
    counts: list[int]
    here: Array
    alike: bool
    mask: Tensor | None
    lead: list[int]
    trail: list[int]
    empty: list[bool]
    pad_id: int | None

    @property
    def places(self) -> Array:
        """(sum of counts,) int64 flat indices of the placeholders into the new part."""
        return np.flatnonzero(self.here)

    @property
    def padded(self) -> bool:
        """Whether a row is padded at either end."""
        return any(self.lead) or any(self.trail)

    @property
    def padded_in_front(self) -> bool:
        """Whether a row with tokens is padded in front of them."""
        return any(lead and not empty for lead, empty in zip(self.lead, self.empty, strict=True))


def read_rows(model: Any, inputs: Mapping[str, Any], token: int) -> Rows:
    """Reads the rows of a batch.

    Without an `attention_mask` and without `position_ids`, the mask is the one that `generate` infers: where padding
    has an id of its own and stands in the batch, it is masked.

    Args:
        model: the model, for what it pads with.
        inputs: the inputs, `input_ids` being (batch, L).
        token: id of the placeholder.

    Raises:
        InputsError: a cache that does not fit `input_ids` and `attention_mask`.
    """
    ids: Tensor = inputs["input_ids"]
    given: Tensor | None = inputs.get("attention_mask")
    start, behind = _start(inputs)
    new = ids[:, start:]
    entries = {name: value for name, value in per_token(inputs).items() if name != "input_ids"}
    counted = {
        name: value[:, start:].to(ids.dtype) for name, value in entries.items() if _whole(value) or name in LABELS
    }
    if given is not None:
        mask = given[:, -new.shape[1] :]
        counted[_MASK] = (mask if _whole(mask) else mask.ne(0)).to(ids.dtype)
    host, *read = (each.numpy() for each in on_host([new, *counted.values()]))
    found: dict[str, Array] = dict(zip(counted, read, strict=True))
    here = host == token
    pad = None
    if given is None and inputs.get("position_ids") is None:
        config = getattr(model, "generation_config", None)
        pad = inferred_pad(getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None), host)
    valid = found[_MASK] != 0 if _MASK in found else host != pad if pad is not None else np.ones_like(here)
    # Behind a cache nothing goes: what is padded there now stands between tokens.
    fixed = valid | here if not behind else np.ones_like(here)
    for name in LABELS:
        if name in found:
            fixed |= found[name] != IGNORED_LABEL
    if "shift_labels" in found:  # and the token that it tells of
        fixed[:, 1:] |= (found["shift_labels"] != IGNORED_LABEL)[:, :-1]
    lead, trail = _ends(fixed), _ends(fixed[:, ::-1])
    fillers = [
        int(host[row, column])
        for column, counts in ((0, lead), (-1, trail))
        for row, count in enumerate(counts)
        if count
    ]
    known = _whole(given) and all(map(_whole, entries.values())) and "shift_labels" not in entries
    return Rows(
        start=start,
        behind=behind,
        counts=here.sum(1).tolist(),
        here=here,
        alike=known and inputs.get("position_ids") is None and all(map(_same, (each[here] for each in found.values()))),
        mask=new.ne(pad).to(torch.int64) if pad is not None else None if given is None else mask,
        lead=lead,
        trail=trail,
        empty=(~fixed.any(axis=1)).tolist(),
        pad_id=fillers[0] if fillers else None,
    )


_MASK = "attention_mask"


def _whole(values: Tensor | None) -> bool:
    """Whether an entry holds whole numbers, if there is one."""
    return values is None or not (values.is_floating_point() or values.is_complex())


def _same(values: Array) -> bool:
    """Whether all values are the same."""
    return not len(values) or bool((values == values[0]).all())


def _ends(fixed: Array) -> list[int]:
    """Columns in front of the first True of every row, all of them in a row without one."""
    found: list[int] = np.where(fixed.any(axis=1), fixed.argmax(axis=1), fixed.shape[1]).tolist()
    return found


def _start(inputs: Mapping[str, Any]) -> tuple[int, int]:
    """(columns of `input_ids` that a cache holds already, tokens that it holds)."""
    ids, mask, cache = inputs["input_ids"], inputs.get("attention_mask"), cache_in(inputs)
    filled = 0 if cache is None else int(cache.get_seq_length())
    if not filled:
        if mask is not None and mask.shape != ids.shape:
            raise InputsError("attention_mask must be a tensor of the shape of input_ids")
        return 0, 0
    if mask is None:
        raise InputsError(f"with a cache of {filled} tokens give attention_mask, which tells which ids are new")
    if mask.shape[1] == ids.shape[1] + filled:
        return 0, filled
    if mask.shape != ids.shape or ids.shape[1] <= filled:
        raise InputsError(
            f"a cache of {filled} tokens, input_ids of {ids.shape[1]} and attention_mask of {mask.shape[1]} do not fit:"
            " give the whole conversation's ids and mask, or the new ids and the whole mask"
        )
    return filled, filled


def inferred_pad(pad: Any, end: Any, ids: Tensor | Array) -> int | None:
    """The id that `generate` would take for padding in inputs without a mask, None for none.

    Args:
        pad, end: `pad_token_id` and `eos_token_id` in force.
        ids: `input_ids`.
    """
    ends = end.tolist() if isinstance(end, Tensor) else end
    ends = ends if isinstance(ends, list | tuple) else [ends]
    if not isinstance(pad, int) or pad in ends:
        return None
    return pad if bool((ids == pad).any()) else None
