"""How the rows of a batch stand, read before the model runs, in one wait for the device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hired.caching import cache_in
from hired.core.transfer import moved_to, on_host
from hired.errors import InputsError
from hired.reduction.entries import IGNORED_LABEL, LABELS


@dataclass(frozen=True)
class Rows:
    """The rows of a batch of L columns, some of which a cache may hold already; only the others, the new ones, are cut.

    Attributes:
        start: columns of `input_ids` in front of the new ones.
        behind: tokens in the cache.
        counts: image placeholders of every row, of its new part.
        places: (sum of counts,) int64 flat indices of them into the (batch, L - start) new part, beside `input_ids`.
        mask: (batch, L - start) mask of the new part beside `input_ids`, None where nothing is masked.
        lead, trail: padding at both ends of every row's new part: places that are masked, hold no placeholder, and
            have no label. Only they may go.
        empty: rows of padding alone, which have all of their places in both.
        pad_id: the id that stands in padding, None where nothing is padded.
    """

    start: int
    behind: int
    counts: list[int]
    places: Tensor
    mask: Tensor | None
    lead: list[int]
    trail: list[int]
    empty: list[bool]
    pad_id: int | None

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
    told = {name: inputs.get(name) for name in LABELS}
    labels = {
        name: value[:, start:] for name, value in told.items() if isinstance(value, Tensor) and value.shape == ids.shape
    }
    masked = [] if given is None else [given[:, -new.shape[1] :].ne(0).to(ids.dtype)]
    host, *others = on_host([new, *masked, *[label.to(ids.dtype) for label in labels.values()]])
    here = host == token
    pad = None
    if given is None and inputs.get("position_ids") is None:
        config = getattr(model, "generation_config", None)
        pad = inferred_pad(getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None), host)
    valid = others.pop(0).bool() if masked else (host != pad if pad is not None else torch.ones_like(here))
    # Behind a cache nothing goes: what is padded there now stands between tokens.
    fixed = valid | here if not behind else torch.ones_like(here)
    for name, label in zip(labels, others, strict=True):
        fixed |= label != IGNORED_LABEL
        if name == "shift_labels":  # and the token that it tells of
            fixed[:, 1:] |= (label != IGNORED_LABEL)[:, :-1]
    lead, trail = _ends(fixed), _ends(fixed.flip(1))
    fillers = [
        int(host[row, column])
        for column, counts in ((0, lead), (-1, trail))
        for row, count in enumerate(counts)
        if count
    ]
    mask = None if given is None else given[:, -new.shape[1] :]
    return Rows(
        start=start,
        behind=behind,
        counts=here.sum(1).tolist(),
        places=moved_to(ids.device, here.flatten().nonzero().flatten()),
        mask=new.ne(pad).to(torch.int64) if pad is not None else mask,
        lead=lead,
        trail=trail,
        empty=(~fixed.any(1)).tolist(),
        pad_id=fillers[0] if fillers else None,
    )


def _ends(fixed: Tensor) -> list[int]:
    """Columns in front of the first True of every row, all of them in a row without one."""
    found: list[int] = torch.where(fixed.any(1), fixed.to(torch.uint8).argmax(1), fixed.shape[1]).tolist()
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


def inferred_pad(pad: Any, end: Any, ids: Tensor) -> int | None:
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
