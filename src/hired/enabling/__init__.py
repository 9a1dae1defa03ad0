"""`hired.enable`: reduction inside a model's own `generate` and `forward`, for code that cannot be edited."""

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from hired.caching import cache_in, cache_of
from hired.compiling import untraced
from hired.core.budget import Budget, EncoderBudget, Newlines
from hired.core.transfer import host_by_default
from hired.enabling.generating import adapt, with_prompt
from hired.enabling.loss import adapt_loss
from hired.enabling.masks import generates_mask
from hired.enabling.shadows import Shadows, enabled
from hired.enabling.turns import Turn, Turns
from hired.errors import HiredError, UnsupportedModelError
from hired.families import family_of
from hired.methods import Method, resolve
from hired.reduction import Counts, ReducedInputs, reduce
from hired.reduction.checks import Positions, check_choices, check_encoder, check_encoder_budget


class Enabled:
    """A model whose `generate` and `forward` reduce their pictures; undone by `disable()` or by leaving `with`."""

    def __init__(self, model: Any, budget: float, settings: dict[str, Any]) -> None:
        if enabled(model):
            raise HiredError("this model is enabled already: call .disable() on its handle first")
        self._model, self._budget, self._settings = model, budget, settings
        self._gaps = settings["positions"] == "original" and not family_of(model).grid_positions
        self._turns = Turns()
        self._counts, self._counting = Counts(), threading.Lock()
        inside = {"generate": self._generate, "forward": self._forward}
        self._shadows = Shadows(model, inside, passes=Budget.parse(budget).share == 1)

    @property
    def counts(self) -> Counts:
        """Pictures that calls have brought since the model was enabled, their visual tokens, and how many were kept.

        A picture counts once a call that brings its pixels, in `generate` and in `forward`. Under a budget of 1 calls
        are handed on unseen, and nothing is counted.
        """
        return self._counts

    def disable(self) -> None:
        """Puts the instance back as it was; what others have laid over it meanwhile stays. Again, it does nothing."""
        if self._shadows.on:
            self._shadows.remove()

    def __enter__(self) -> "Enabled":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disable()

    def _reduce(self, call: Mapping[str, Any]) -> dict[str, Any] | None:
        """The arguments of a call that brings pictures, shortened; None for one of which everything is kept."""
        if call.get("pixel_values") is None:
            return None
        reduced = reduce(self._model, call, self._budget, **self._settings)
        self._count(reduced)
        return None if "pixel_values" in reduced else {name: reduced[name] for name in reduced}

    @untraced
    def _count(self, reduced: ReducedInputs) -> None:
        """Adds what a call brought; threads that share the model wait for each other."""
        with self._counting:
            self._counts = self._counts.plus(reduced.counts)

    def _forward(self, original: Callable[..., Any], call: dict[str, Any]) -> Any:
        told = self._turns.shortened(call)
        implied = told
        if told.get("attention_mask") is None and told.get("position_ids") is None and cache_in(told) is None:
            ids = told.get("input_ids")  # without a mask everything counts here, unlike in generate
            implied = {**told, "attention_mask": torch.ones_like(ids)} if isinstance(ids, Tensor) else told
        reduced = self._reduce(implied)
        if reduced is None:
            return original(**told)
        adapt_loss(call, reduced)
        output = original(**reduced)
        self._note(cache_of(output), call, reduced)
        return output

    def _generate(self, original: Callable[..., Any], call: dict[str, Any]) -> Any:
        if call.get("inputs") is not None and call.get("input_ids") is None:
            call["input_ids"] = call.pop("inputs")
        told = self._turns.shortened(call)
        implied = told
        if told.get("attention_mask") is None and isinstance(told.get("input_ids"), Tensor):
            implied = {**told, "attention_mask": generates_mask(self._model, told)}
        reduced = self._reduce(implied)
        if reduced is None and told is call:
            return original(**call)
        prompt = call["input_ids"]
        ready = told if reduced is None else reduced
        dropped = prompt.shape[1] - ready["input_ids"].shape[1]
        adapt(self._model, ready, prompt, dropped)
        output = original(**ready)
        sequences = output if isinstance(output, Tensor) else output.sequences
        cache = cache_in(call) if cache_in(call) is not None else cache_of(output)
        if reduced is not None:
            self._note(cache, call, reduced, len(sequences) // len(prompt))
        whole = with_prompt(sequences, prompt, dropped)
        if isinstance(output, Tensor):
            return whole
        output.sequences = whole
        return output

    def _note(self, cache: Any, call: Mapping[str, Any], reduced: Mapping[str, Any], copies: int = 1) -> None:
        """Remembers what a cache was filled with.

        Args:
            cache: the cache, if any.
            call: the caller's arguments.
            reduced: the model's.
            copies: sequences of each row.
        """
        ids, mask, ran = call["input_ids"], call.get("attention_mask"), reduced["input_ids"]
        seen = ids.shape[1] if mask is None else mask.shape[1]
        given = reduced.get("attention_mask")
        run = torch.ones_like(ran) if given is None else given
        if run.dim() != 2:  # packed sequences, which nothing goes on from
            return
        rows = [each.repeat_interleave(copies, 0) for each in (ids, ran, run)]
        shown = rows[0] if seen == ids.shape[1] else None
        self._turns.note(cache, Turn(shown, rows[1], rows[2], seen, self._gaps))


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
    pictures, inputs that `hired.reduce` made, and budgets under which every picture keeps everything pass through.
    `generate` returns the caller's own prompt in front of the new tokens, which is also what callbacks see and what
    `max_length` and `min_length` count. `forward` returns logits of the shortened sequence; its loss is right where
    `labels` are given. Copies of the model are not enabled. What goes around the instance's two methods, such as
    `type(model).generate(model, ...)` or `model.model(...)`, is not reduced.

    Args:
        model: a supported vision-language model.
        budget, alpha, method, variant, newlines, positions, encoder_budget: as in `hired.reduce`.

    Returns:
        A context manager and handle.

    Raises:
        BudgetError, UnsupportedModelError: as `hired.reduce`, at once and not at the first call.
        HiredError: the instance is enabled already.
    """
    parsed = Budget.parse(budget)
    family = family_of(model)
    if not callable(getattr(model, "generate", None)):
        raise UnsupportedModelError(
            f"{type(model).__name__} is the part of a model that cannot generate: enable the whole model"
        )
    check_choices(family, newlines, positions)
    chosen = resolve(method, variant, alpha)
    narrowed = check_encoder_budget(encoder_budget, chosen, newlines)
    if parsed.share != 1:
        with host_by_default():
            check_encoder(family, model, chosen, narrowed)
    settings = {
        "alpha": alpha,
        "method": method,
        "variant": variant,
        "newlines": newlines,
        "positions": positions,
        "encoder_budget": encoder_budget,
    }
    return Enabled(model, budget, settings)
