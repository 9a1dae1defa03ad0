"""`hired.agreement`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hired import greedy
from hired.agreeing.answering import Answered, answered
from hired.agreeing.rows import Row, make_rows
from hired.agreeing.samples import by_picture, samples_of
from hired.agreeing.settings import BUDGETS, Settings
from hired.agreeing.timing import middle, timed
from hired.errors import InputsError
from hired.families import family_of

if TYPE_CHECKING:
    from hired.methods import Method

__all__ = ["agreement", "ready"]


def agreement(
    model: Any,
    processor: Any,
    samples: Iterable[Any],
    budgets: Sequence[int | float] = BUDGETS,
    methods: Sequence[str | Method] = ("hired",),
    *,
    max_new_tokens: int = 64,
    alpha: float = 0.5,
    variant: str = "paper",
    newlines: str = "drop",
    positions: str | None = None,
    repeats: int = 3,
    advance: Callable[[int], None] = lambda pictures: None,
) -> list[Row]:
    """Measures how well a model's answers under budgets agree with its own answers on all visual tokens.

    Answers are greedy, one question at a time, and end as the checkpoint says. Every picture is encoded once for all
    budgets, methods and questions about it; the untouched model runs on the processor's own output.

    Args:
        model: a supported vision-language model, in eval mode.
        processor: its processor.
        samples: (image, question) or (image, question, answer) tuples, the image a PIL picture, the answer a text or
            several that are all right; or `hired.agreeing.Sample`s. Tuples with the same picture object are about one
            picture.
        budgets: as in `hired.reduce`.
        methods: as in `hired.reduce`.
        max_new_tokens: longest answer.
        alpha, variant, newlines, positions: as in `hired.reduce`.
        repeats: timed runs, with the picture in the middle by visual tokens, of every budget and method, after one to
            warm up; 0 for none.
        advance: called with the number of pictures done since the last call.

    Returns:
        Rows, plain dictionaries (`hired.agreeing.rows.Row` says what they hold): the untouched model's, then one for
        every method and budget.

    Raises:
        BudgetError: a setting out of range, or a budget that leaves a picture no token.
        InputsError: samples that are none, a model in training mode, or a question that its prompts cannot hold.
        UnsupportedModelError: a model HiRED does not know.
    """
    settings = Settings(budgets, methods, max_new_tokens, alpha, variant, newlines, positions, repeats)
    settings.check()
    given = samples_of(samples)
    ready(model)
    found: list[Answered] = []
    for some in by_picture(given).values():
        found += answered(model, processor, some, settings)
        advance(1)
    costs = timed(model, processor, middle(found), settings) if settings.repeats else None
    return make_rows(settings.jobs(), found, costs)


def ready(model: Any) -> None:
    """Refuses a model that cannot be measured, before anything runs.

    Raises:
        InputsError: it is in training mode.
        ModelLoadError: what ends its answers is no token.
        UnsupportedModelError: it is of no known family.
    """
    family_of(model)
    greedy.end_tokens(model)
    if model.training:
        raise InputsError("the model is in training mode, in which answers vary: call model.eval() first")
