"""What options may say: numbers within reason, and dtypes by any of their names. Imports nothing heavy."""

from __future__ import annotations

import math
from typing import cast

from hired.errors import BudgetError, HiredError

__all__ = ["DTYPES", "MOST_TOKENS", "budgets", "check_settings", "full_dtype", "names", "number", "positive"]

DTYPES = {
    "fp32": "float32",
    "float": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "nf4": "int4",
}
"""Other names of dtypes, in every command."""

MOST_TOKENS = 10**9
"""More tokens than any model, picture or prompt has."""


def number(text: str) -> int | float | str:
    """A budget as typed: a whole number, a number, or the text itself where it is neither.

    Raises:
        BudgetError: more tokens than any picture has.
    """
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value) and value > MOST_TOKENS:
            raise BudgetError(f"budget {text}: no picture has that many tokens; use {MOST_TOKENS:,} or fewer")
        return value
    return text


def names(text: str) -> tuple[str, ...]:
    """Comma-separated names."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def budgets(text: str) -> tuple[int | float | str, ...]:
    """Comma-separated budgets."""
    return tuple(map(number, names(text)))


def check_settings(
    budget: int | float | str,
    alpha: float,
    method: str,
    variant: str,
    newlines: str = "drop",
    encoder_budget: float | None = None,
) -> int | float:
    """The budget, a number for sure, before anything is loaded.

    Raises:
        BudgetError: settings that no picture could do with.
    """
    from hired.core.budget import Budget, check_alpha
    from hired.methods import resolve
    from hired.reduction.checks import check_encoder_budget, check_newlines

    Budget.parse(budget)
    chosen = resolve(method, variant, check_alpha(alpha))
    check_encoder_budget(encoder_budget, chosen, check_newlines(newlines))
    return cast(float, budget)


def full_dtype(name: str) -> str:
    """The name that PyTorch has for a dtype; another text as it is."""
    return DTYPES.get(name.strip().lower(), name)


def positive(value: float, most: float, words: str) -> float:
    """A number as it is.

    Raises:
        HiredError: it is not above 0, or is more than `most`; `words` says what to do.
    """
    if not 0 < value <= most:
        raise HiredError(words)
    return value
