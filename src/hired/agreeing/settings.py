"""What agreement is measured with. Imports nothing heavy."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hired.errors import BudgetError

if TYPE_CHECKING:
    from hired.methods import Method

__all__ = ["BUDGETS", "MEASURES", "Settings"]

BUDGETS = (0.6, 0.4, 0.2, 0.1, 0.05)
"""Budgets measured where none are named."""
MEASURES = ("exact", "similar")
"""What agreement can be asked for in: the share of answers that are the same, or the mean similarity."""
MOST = 100_000
"""Tokens of an answer, or timed runs: more than anybody waits for."""


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        budgets: Shares, or tokens a picture. 1, the untouched model, is always measured, named or not.
        methods: Names of `hired.methods.METHODS`, or methods of the caller's own.
        max_new_tokens: Longest answer.
        alpha, variant, newlines, positions: As in `hired.reduce`.
        repeats: Timed runs of every method and budget; 0 for no times.
    """

    budgets: Sequence[int | float | str] = BUDGETS
    methods: Sequence[str | Method] = ("hired",)
    max_new_tokens: int = 64
    alpha: float = 0.5
    variant: str = "paper"
    newlines: str = "drop"
    positions: str | None = None
    repeats: int = 3

    def check(self) -> None:
        """Raise `BudgetError` for settings that no model could do with."""
        from hired.core.budget import Budget
        from hired.methods import resolve
        from hired.reduction.checks import check_newlines

        if not self.budgets or not self.methods:
            raise BudgetError("agreement needs at least one budget and one method")
        for budget in self.budgets:
            Budget.parse(budget)
        for method in self.methods:
            resolve(method, self.variant, self.alpha)
        check_newlines(self.newlines)
        if self.positions not in (None, "consecutive", "original"):
            raise BudgetError(f"positions={self.positions!r}: use 'consecutive', 'original', or None")
        if len({_name(method) for method in self.methods}) < len(set(map(_key, self.methods))):
            raise BudgetError("two methods have the same name: give each one of its own")
        if not 1 <= self.max_new_tokens <= MOST or not 0 <= self.repeats <= MOST:
            raise BudgetError(f"max_new_tokens must be from 1 to {MOST:,}, repeats from 0")

    def jobs(self) -> list[tuple[str, int | float]]:
        """(method, budget) of every row of the result but the untouched model's, without repetitions."""
        budgets = [budget for budget in self.budgets if not isinstance(budget, str) and budget != 1]
        return list(dict.fromkeys((_name(method), budget) for method in self.methods for budget in budgets))

    def method(self, name: str, picture: str) -> str | Method:
        """The method of a job for a picture: random tokens are drawn anew for each, not to rest on one draw."""
        if name == "random":
            from hired.methods.baselines import Random

            return Random(zlib.crc32(picture.encode(errors="replace")))
        return next(method for method in self.methods if _name(method) == name)

    def keywords(self) -> dict[str, Any]:
        """Arguments of `hired.reduce`, but the budget, the method and the pictures."""
        return {
            "alpha": self.alpha,
            "variant": self.variant,
            "newlines": self.newlines,
            "positions": self.positions,
        }


def _name(method: str | Method) -> str:
    return method if isinstance(method, str) else method.name


def _key(method: str | Method) -> str | int:
    return method if isinstance(method, str) else id(method)
