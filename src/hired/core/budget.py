"""Budgets: what a caller may ask for, and how many tokens that is."""

import math
from dataclasses import dataclass
from fractions import Fraction
from numbers import Rational, Real
from typing import Literal

from hired.core.layout import Layout
from hired.errors import BudgetError

Newlines = Literal["drop", "keep"]

_EXACT = 1_000_000
"""Shares are read as the nearest fraction with at most this denominator, so that 0.29 of 100 is 29."""


def floor_share(share: float | Fraction, total: int) -> int:
    """floor(share x total), computed on the fraction that `share` stands for and not on its binary rounding."""
    return math.floor(Fraction(share).limit_denominator(_EXACT) * total)


@dataclass(frozen=True)
class Budget:
    """A validated budget: a share of the image's visual tokens, or an absolute number of tokens an image.

    Exactly one of `share` (0 < share <= 1) and `tokens` (> 1) is set.
    """

    share: Fraction | None = None
    tokens: int | None = None

    @classmethod
    def parse(cls, value: object) -> "Budget":
        """Reads what the caller passed as `budget`.

        Raises:
            BudgetError: not a number, a bool, NaN, zero or less, or above 1 and not whole.
        """
        if isinstance(value, bool) or not isinstance(value, Real):
            raise BudgetError(
                f"budget must be a number, got {value!r}: a share such as 0.2, or whole tokens per image such as 576"
            )
        number = Fraction(value) if isinstance(value, Rational) else float(value)
        if (isinstance(number, float) and not math.isfinite(number)) or number <= 0:
            raise BudgetError(f"budget must be above 0 and finite, got {value!r}")
        if number <= 1:
            return cls(share=Fraction(number))
        if number != int(number):
            raise BudgetError(f"budget {value!r} is neither a share (at most 1) nor a whole number of tokens per image")
        return cls(tokens=int(number))

    def allowance(self, layout: Layout) -> int | None:
        """Tokens an image may keep, B; None when the image stays as it is.

        A share counts P partitions of N tokens as the encoder makes them (paper, Algorithm 1), or the R patch tokens
        that the LLM sees where the model resamples them (`Layout.tokens_budgeted`). The image stays as it is when
        the share is 1 or when B covers all its tokens, newlines included.

        Raises:
            BudgetError: the share leaves less than one token.
        """
        if self.share == 1:
            return None
        total = layout.tokens_budgeted
        allowed = floor_share(self.share, total) if self.share is not None else self.tokens or 0
        if allowed < 1:
            raise BudgetError(f"budget {float(self.share or 0)} of {total} visual tokens leaves no token: raise it")
        return None if allowed >= layout.tokens_full else allowed


@dataclass(frozen=True)
class EncoderBudget:
    """A budget for the encoder itself: what its later layers still see of each partition. Beyond the paper, lossy.

    Attributes:
        ratio: each partition goes on with this many times the tokens it may keep, rounded up; at least 1.
        depth: share of the encoder's layers, up to the one whose output is used, that see everything; 0..1.
    """

    ratio: float
    depth: float = 0.25

    @classmethod
    def parse(cls, value: object) -> "EncoderBudget | None":
        """Reads what the caller passed as `encoder_budget`: a ratio, such a budget, or None.

        Raises:
            BudgetError: a ratio below 1 or not finite, or a depth outside 0..1.
        """
        if value is None:
            return None
        budget = value if isinstance(value, EncoderBudget) else None
        if budget is None:
            if isinstance(value, bool) or not isinstance(value, Real):
                raise BudgetError(f"encoder_budget must be a number such as 2, or None, got {value!r}")
            budget = cls(float(value))
        if not (math.isfinite(budget.ratio) and budget.ratio >= 1):
            raise BudgetError(
                f"encoder_budget {budget.ratio} must be at least 1 and finite: it multiplies what each partition keeps"
            )
        if not 0 <= budget.depth <= 1:
            raise BudgetError(f"the depth of encoder_budget must be from 0 to 1, got {budget.depth}")
        return budget

    def patches(self, share: int, most: int) -> int:
        """Patches that a partition of `most` patches goes on with, of which it may keep `share` tokens."""
        return math.ceil(min(self.ratio * share, most))

    def layer(self, first: int, last: int) -> int:
        """Index of the first layer that sees less, after the initial layer `first` and at most `last`."""
        return min(max(math.ceil(self.depth * (last + 1)), first + 1), last)


def check_alpha(alpha: object) -> float:
    """Returns `alpha` as a float.

    Raises:
        BudgetError: not a number in 0..1.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, Real) or not 0 <= float(alpha) <= 1:
        raise BudgetError(f"alpha must be a number from 0 to 1 (the full image's share of the budget), got {alpha!r}")
    return float(alpha)
