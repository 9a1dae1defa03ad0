"""`hired.enable`: reduction inside a model's own `generate` and `forward`, for code that cannot be edited."""

import copy
import functools
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from hired.caching import NEW, OLD, cache_of
from hired.core.budget import Budget, EncoderBudget, Newlines
from hired.errors import HiredError, InputsError
from hired.families import family_of
from hired.methods import Method, resolve
from hired.reduction import ReducedInputs, reduce
from hired.reduction.plan import Positions, check_choices, check_encoder, check_encoder_budget

SHADOWED = ("generate", "forward")


class Enabled:
    """A model whose `generate` and `forward` reduce their pictures; undone by `disable()` or by leaving `with`."""

    def __init__(self, model: Any, budget: float, settings: dict[str, Any]) -> None:
        for name in SHADOWED:
            if getattr(vars(model).get(name), "_hired", False):
                raise HiredError("this model is enabled already: call .disable() on its handle first")
        self._model, self._budget, self._settings = model, budget, settings
        self._before = {name: vars(model)[name] for name in SHADOWED if name in vars(model)}
        self._caches: WeakSet[Any] = WeakSet()
        self._on = True
        for name, shadow in (("generate", self._generate), ("forward", self._forward)):
            setattr(model, name, _shadow(getattr(model, name), shadow))

    def disable(self) -> None:
        """Puts the instance back as it was. Calling it again does nothing."""
        if not self._on:
            return
        self._on = False
        for name in SHADOWED:
            if name in self._before:
                setattr(self._model, name, self._before[name])
            else:
                delattr(self._model, name)

    def __enter__(self) -> "Enabled":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disable()

    def _reduce(self, arguments: dict[str, Any]) -> ReducedInputs | None:
        """The reduced inputs of a call that brings pictures; None for one that does not."""
        if arguments.get("pixel_values") is None:
            return None
        tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
        return reduce(self._model, tensors, self._budget, **self._settings)

    def _forward(self, original: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        reduced = self._reduce(arguments)
        if reduced is None:
            return original(**arguments)
        return original(**_replaced(arguments, reduced))

    def _generate(self, original: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        if arguments.get("inputs") is not None and arguments.get("input_ids") is None:
            arguments["input_ids"] = arguments.pop("inputs")
        cache = next((arguments[name] for name in (NEW, OLD) if arguments.get(name) is not None), None)
        if cache is not None and cache in self._caches:
            raise InputsError(
                "this cache was filled under hired.enable and holds fewer tokens than the prompt: for several turns"
                " with one cache use hired.reduce"
            )
        reduced = self._reduce(arguments)
        if reduced is None:
            return original(**arguments)
        prompt = arguments["input_ids"]
        dropped = prompt.shape[1] - reduced["input_ids"].shape[1]
        call = _replaced(arguments, reduced)
        _shorten(self._model, call, dropped)
        if call.get("streamer") is not None:
            call["streamer"] = _PromptStreamer(call["streamer"], prompt)
        output = original(**call)
        used = cache if cache is not None else cache_of(output)
        if used is not None:
            self._caches.add(used)
        if isinstance(output, Tensor):
            return _with_prompt(output, prompt, dropped)
        output.sequences = _with_prompt(output.sequences, prompt, dropped)
        return output


def enable(
    model: Any,
    budget: float,
    *,
    alpha: float = 0.5,
    method: str | Method = "hired",
    variant: str = "paper",
    newlines: Newlines = "drop",
    positions: Positions | None = None,
    encoder_budget: float | EncoderBudget | None = None,
) -> Enabled:
    """Reduces inside `model.generate` and `model.forward`, for code that cannot be edited.

    Shadows the two methods on this one instance, until `.disable()` or the end of the `with` block. Calls without
    pictures, and inputs that `hired.reduce` made, pass through. `generate` returns the caller's own prompt in
    front of the new tokens, and lengths given as `max_length` or `min_length` count that prompt. `forward`
    returns logits of the shortened sequence; its loss is right where `labels` are given.

    Args:
        model: a supported vision-language model.
        budget, alpha, method, variant, newlines, positions, encoder_budget: as in `hired.reduce`.

    Returns:
        A context manager and handle.

    Raises:
        BudgetError, UnsupportedModelError: as `hired.reduce`, at once and not at the first call.
        HiredError: the instance is enabled already.
    """
    Budget.parse(budget)
    family = family_of(model)
    check_choices(family, newlines, positions)
    chosen = resolve(method, variant, alpha)
    check_encoder(family, model, chosen, check_encoder_budget(encoder_budget, chosen, newlines))
    settings = {
        "alpha": alpha,
        "method": method,
        "variant": variant,
        "newlines": newlines,
        "positions": positions,
        "encoder_budget": encoder_budget,
    }
    return Enabled(model, budget, settings)


def _shadow(original: Callable[..., Any], inside: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the signature of `original` that calls `inside(original, arguments by name)`."""
    signature = inspect.signature(original)
    rest = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)

    @functools.wraps(original)
    def shadow(*args: Any, **kwargs: Any) -> Any:
        arguments = dict(signature.bind(*args, **kwargs).arguments)
        arguments.update(arguments.pop(rest, {}) if rest else {})
        return inside(original, arguments)

    shadow._hired = True  # type: ignore[attr-defined]
    return shadow


def _replaced(arguments: dict[str, Any], reduced: ReducedInputs) -> dict[str, Any]:
    """The call's arguments with its tensors replaced by the reduced inputs."""
    others = {name: value for name, value in arguments.items() if not isinstance(value, Tensor)}
    return others | {name: reduced[name] for name in reduced}


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


def _with_prompt(sequences: Tensor, prompt: Tensor, dropped: int) -> Tensor:
    """`sequences` (batch * returned, length) with the caller's prompt in place of the shortened one."""
    prompts = prompt.repeat_interleave(sequences.shape[0] // prompt.shape[0], dim=0).to(sequences.device)
    return torch.cat((prompts, sequences[:, prompt.shape[1] - dropped :]), dim=1)


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
