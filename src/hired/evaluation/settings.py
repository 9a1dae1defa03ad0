"""What an evaluation is run with. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from hired.errors import BudgetError

__all__ = ["CHECKS", "Settings", "all_methods"]

DEFAULTS = ("hired", "uniform", "random", "overview", "smaller")
"""Methods measured where none are named."""
ALL = "all"
"""In place of names: every method."""
CHECKS = ("blank-half", "no-newlines")
"""What must not hurt before any method's number means something; each measured once, at budget 1."""
MOST = 100_000
"""Pictures, or tokens of an answer, in one evaluation: more do not fit into memory."""

_CHOICES = {
    "task": ("forms", "dense", "large", "shapes", "layout", "mixed"),
    "fonts": ("train", "unseen"),
    "newlines": ("drop", "keep"),
    "positions": (None, "consecutive", "original"),
    "variant": ("paper", "published"),
}


def all_methods() -> tuple[str, ...]:
    """Methods that can be measured, each at every budget: those of `hired.methods`, and "smaller"."""
    from hired.methods import METHODS

    return (*METHODS, "smaller")


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        task: ``forms``, ``dense``, ``large``, ``shapes``, ``layout`` or ``mixed``, see `hired.forms`.
        budgets: Shares, or tokens a picture.
        methods: Names of `all_methods` and `CHECKS`; "all" stands for the former.
        limit: How many pictures.
        fonts: ``train``, or ``unseen`` typefaces.
        newlines: ``drop`` or ``keep``, see `hired.reduce`.
        positions: ``consecutive`` or ``original``, see `hired.reduce`; None for the family's own.
        alpha: The full image's share of the budget, 0..1.
        variant: HiRED's, ``paper`` or ``published``.
        encoder_budget: HiRED's, see `hired.reduce`; None for none.
        batch_size: Pictures at a time.
        max_new_tokens: Longest answer.
    """

    task: str = "forms"
    budgets: tuple[int | float | str, ...] = (1, 0.4, 0.2, 0.1)
    methods: tuple[str, ...] = DEFAULTS
    limit: int = 1000
    fonts: str = "train"
    newlines: str = "drop"
    positions: str | None = None
    alpha: float = 0.5
    variant: str = "paper"
    encoder_budget: float | None = None
    batch_size: int = 16
    max_new_tokens: int = 8

    def check(self) -> tuple[int | float, ...]:
        """The budgets, numbers for sure.

        Raises:
            BudgetError: A setting that is unknown or out of range.
        """
        from hired.core.budget import Budget, EncoderBudget, check_alpha

        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise BudgetError(f"{name}={getattr(self, name)!r}: use one of {', '.join(filter(None, known))}")
        names = (*all_methods(), *CHECKS)
        for method in self.methods:
            if method not in (*names, ALL):
                raise BudgetError(f"unknown method {method!r}: use {', '.join(names)}, or {ALL}")
        if not self.methods or not self.budgets:
            raise BudgetError("an evaluation needs at least one method and one budget")
        counts = self.limit, self.batch_size, self.max_new_tokens
        if not 1 <= min(counts) <= max(counts) <= MOST:
            raise BudgetError(f"limit, batch_size and max_new_tokens must be from 1 to {MOST:,}")
        check_alpha(self.alpha)
        if EncoderBudget.parse(self.encoder_budget) and (self.variant != "paper" or self.newlines != "drop"):
            raise BudgetError("encoder_budget goes with variant='paper' and newlines='drop' only")
        for budget in self.budgets:
            Budget.parse(budget)
        return tuple(budget for budget in self.budgets if not isinstance(budget, str))

    def jobs(self) -> list[tuple[str, int | float]]:
        """(method, budget) of every row of the result, without repetitions."""
        rows: list[tuple[str, int | float]] = []
        methods = [name for method in self.methods for name in (all_methods() if method == ALL else (method,))]
        for method in methods:
            rows += [(method, budget) for budget in ((1,) if method in CHECKS else self.check())]
        return list(dict.fromkeys(rows))
