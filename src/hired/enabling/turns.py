"""Conversations that go on with one cache, which holds fewer tokens than the caller has seen."""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hired.caching import cache_in
from hired.errors import InputsError


@dataclass(frozen=True)
class Turn:
    """The prompt that a cache was filled with last; what follows it is the same for the caller and for the model.

    Attributes:
        shown: (batch, seen) ids as the caller knows them; None where a call told the new ones alone.
        ran: (batch, run) ids as the model got them, likewise.
        mask: (batch, run), 0 for padding.
        seen: how long the prompt is to the caller.
        gaps: the tokens have positions of the full prompt, which nothing but `position_ids` tells.
    """

    shown: Tensor | None
    ran: Tensor
    mask: Tensor
    seen: int
    gaps: bool

    @property
    def dropped(self) -> int:
        """By how much the model's prompt is shorter."""
        return self.seen - self.mask.shape[1]


class Turns:
    """The conversations of an enabled model, by their caches."""

    def __init__(self) -> None:
        self._by_cache: WeakKeyDictionary[Any, Turn] = WeakKeyDictionary()

    def note(self, cache: Any, turn: Turn) -> None:
        """Remembers what a cache holds."""
        if cache is not None:
            self._by_cache[cache] = turn

    def shortened(self, call: dict[str, Any]) -> dict[str, Any]:
        """A call with what the model got in place of what the caller has seen, where its cache is an earlier call's.

        Changed are `input_ids` where they hold the conversation, and `attention_mask`.

        Raises:
            InputsError: ids or a mask of another conversation, or positions that the call does not tell.
        """
        cache = cache_in(call)
        turn = None if cache is None else self._by_cache.get(cache)
        if turn is None:
            return call
        filled = int(cache.get_seq_length())
        if not filled:  # it was reset
            del self._by_cache[cache]
            return call
        if turn.gaps and call.get("position_ids") is None:
            raise InputsError(
                'this cache was filled with positions="original", which go on elsewhere than its length: give'
                " position_ids, those behind the whole prompt"
            )
        ids, mask = call.get("input_ids"), call.get("attention_mask")
        if not isinstance(ids, Tensor):
            raise InputsError("a cache that was filled under hired.enable goes on with input_ids alone")
        new = (mask is not None and mask.shape[1] != ids.shape[1]) or ids.shape[1] <= turn.seen
        if new:
            if mask is not None and mask.shape[1] == filled + turn.dropped + ids.shape[1]:
                call = {**call, "attention_mask": torch.cat((turn.mask.to(mask), mask[:, turn.seen :]), 1)}
            return call
        if turn.shown is None or not torch.equal(ids[:, : turn.seen], turn.shown.to(ids.device)):
            raise InputsError(
                "this cache was filled under hired.enable, and input_ids do not begin with the prompt it was filled"
                " with: give the whole conversation's ids, or the new ids and the whole mask"
            )
        call = {**call, "input_ids": torch.cat((turn.ran.to(ids.device), ids[:, turn.seen :]), 1)}
        if mask is not None:
            call["attention_mask"] = torch.cat((turn.mask.to(mask), mask[:, turn.seen :]), 1)
        elif not bool(turn.mask.all()):
            ones = torch.ones_like(ids[:, turn.seen :])
            call["attention_mask"] = torch.cat((turn.mask.to(ones), ones), 1)
        return call
