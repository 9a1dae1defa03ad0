"""What a caller's settings and callbacks mean in a `generate` whose prompt is shorter than the caller's."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

_LENGTHS = (
    "begin_index",
    "input_start_len",
    "max_length",
    "min_length",
    "prompt_ignore_length",
    "prompt_length_to_skip",
    "regulation_start",
)
"""Attributes of transformers' own processors and criteria that count from the beginning of the prompt."""


def adapt(model: Any, call: dict[str, Any], prompt: Tensor, dropped: int) -> None:
    """Makes everything that counts the prompt, or sees it, right for the shortened one; in place, on copies.

    Args:
        model: the model.
        call: arguments of `generate`, already shortened.
        prompt: (batch, length), the caller's.
        dropped: by how much it is shorter.
    """
    _shorten(model, call, dropped)
    if call.get("streamer") is not None:
        call["streamer"] = _PromptStreamer(call["streamer"], prompt)
    whole = _Whole(prompt, dropped)
    if call.get("logits_processor"):
        call["logits_processor"] = LogitsProcessorList(
            _adapted(each, _Processor, whole) for each in call["logits_processor"]
        )
    if call.get("stopping_criteria"):
        call["stopping_criteria"] = StoppingCriteriaList(
            _adapted(each, _Criterion, whole) for each in call["stopping_criteria"]
        )
    if call.get("prefix_allowed_tokens_fn") is not None:
        allowed: Callable[[int, Tensor], Any] = call["prefix_allowed_tokens_fn"]
        call["prefix_allowed_tokens_fn"] = lambda row, ids: allowed(row, whole.of_row(row, ids))


def with_prompt(sequences: Tensor, prompt: Tensor, dropped: int) -> Tensor:
    """`sequences` (batch * k, length) with the caller's prompt in place of the shortened one."""
    prompts = prompt.repeat_interleave(sequences.shape[0] // prompt.shape[0], dim=0).to(sequences.device)
    return torch.cat((prompts, sequences[:, prompt.shape[1] - dropped :]), dim=1)


class _Whole:
    """The sequences as the caller would see them, worked out once a step."""

    def __init__(self, prompt: Tensor, dropped: int) -> None:
        self._prompt, self._dropped = prompt, dropped
        self._last: tuple[Tensor, Tensor] | None = None

    def of(self, ids: Tensor) -> Tensor:
        """(batch * beams, length) with the whole prompt."""
        if self._last is None or self._last[0] is not ids:
            self._last = ids, with_prompt(ids, self._prompt, self._dropped)
        return self._last[1]

    def shorter(self, length: Any) -> Any:
        """A length that counts the caller's prompt, on the shortened one; a whole number or a tensor of one."""
        return length.sub(self._dropped).clamp(min=0) if isinstance(length, Tensor) else max(length - self._dropped, 0)

    def of_row(self, row: int, ids: Tensor) -> Tensor:
        """(length,) of one row of the batch."""
        return torch.cat((self._prompt[row].to(ids.device), ids[self._prompt.shape[1] - self._dropped :]))


class _Processor(LogitsProcessor):  # type: ignore[misc]
    """A caller's logits processor, which sees the whole prompt."""

    def __init__(self, inner: Any, whole: _Whole) -> None:
        self._inner, self._whole = inner, whole

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Any:
        return self._inner(self._whole.of(input_ids), scores)


class _Criterion(StoppingCriteria):  # type: ignore[misc]
    """A caller's stopping criterion, which sees the whole prompt."""

    def __init__(self, inner: Any, whole: _Whole) -> None:
        self._inner, self._whole = inner, whole

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        return self._inner(self._whole.of(input_ids), scores, **kwargs)


def _adapted(each: Any, wrapper: Callable[[Any, _Whole], Any], whole: _Whole) -> Any:
    """A processor or criterion for the shortened prompt.

    transformers' own stay what they are, as `generate` tells by their type which take the place of its own; what they
    count from the beginning is shortened.
    """
    if not type(each).__module__.startswith("transformers."):
        return wrapper(each, whole)
    found = {name: getattr(each, name) for name in _LENGTHS if isinstance(getattr(each, name, None), int | Tensor)}
    if not found:
        return each
    made = copy.copy(each)
    for name, length in found.items():
        setattr(made, name, whole.shorter(length))
    return made


def _shorten(model: Any, call: dict[str, Any], dropped: int) -> None:
    """Makes total lengths, which count the prompt, count the shortened one; in place, on copies."""
    config = call.get("generation_config")
    if config is not None:
        config = call["generation_config"] = copy.deepcopy(config)
    for name, new_name in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        holders = [holder for holder in (config, model.generation_config) if holder is not None]
        if call.get(new_name) is not None or any(getattr(holder, new_name, None) is not None for holder in holders):
            continue
        if call.get(name) is not None:
            call[name] = max(call[name] - dropped, 0)
            continue
        length = next((value for h in holders if (value := getattr(h, name, None)) is not None), None)
        if not length:
            continue
        if config is not None:
            setattr(config, name, max(length - dropped, 0))
        else:
            call[name] = max(length - dropped, 0)


class _PromptStreamer(BaseStreamer):  # type: ignore[misc]
    """Hands the caller's streamer the caller's prompt where `generate` puts the shortened one, and all else."""

    def __init__(self, streamer: BaseStreamer, prompt: Tensor) -> None:
        self._streamer = streamer
        self._prompt: Tensor | None = prompt

    def put(self, value: Tensor) -> None:
        """Passes tokens on; the first call is the prompt."""
        if self._prompt is not None:
            value, self._prompt = self._prompt.cpu(), None
        self._streamer.put(value)

    def end(self) -> None:
        """Passes the end on."""
        self._streamer.end()
