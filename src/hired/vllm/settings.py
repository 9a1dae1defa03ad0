"""What a server and a request may ask for."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hired.core.budget import Budget, check_alpha
from hired.core.layout import Layout
from hired.costs.tokens import kept_tokens
from hired.errors import BudgetError
from hired.vllm.versions import check

REQUEST_KEY = "hired_budget"
"""What a request names its own budget in `mm_processor_kwargs`."""

_KEYS = ("budget", "alpha")


@dataclass(frozen=True)
class Settings:
    """A server's settings: the entry `hired` of the model's configuration.

    Attributes:
        budget: what an image may keep.
        alpha: the full image's share of it.
    """

    budget: Budget
    alpha: float = 0.5

    @classmethod
    def of(cls, config: Any) -> "Settings | None":
        """The settings in a model's configuration, None where it has no entry `hired`.

        Raises:
            BudgetError: an entry that does not say what to keep, or says it wrongly.
            UnsupportedModelError: this vLLM is outside the tested range.
        """
        given = getattr(config, "hired", None)
        if given is None:
            return None
        check()
        if not isinstance(given, Mapping) or "budget" not in given or not set(given) <= set(_KEYS):
            raise BudgetError(
                f'"hired" in --hf-overrides must be {{"budget": ...}} and perhaps "alpha", got {given!r}:'
                ' for example {"hired": {"budget": 0.2}}'
            )
        return cls(Budget.parse(given["budget"]), check_alpha(given.get("alpha", 0.5)))

    def requested(self, kwargs: Mapping[str, Any]) -> Budget:
        """The budget of a request with these `mm_processor_kwargs`: its own, or the server's.

        Raises:
            BudgetError: a value that is no budget, or a share above the server's share (or tokens above its tokens).
        """
        unknown = sorted(key for key in kwargs if key.startswith("hired") and key != REQUEST_KEY)
        if unknown:
            raise BudgetError(f"unknown entries {unknown} in mm_processor_kwargs: a request may set {REQUEST_KEY} only")
        if REQUEST_KEY not in kwargs:
            return self.budget
        try:
            own = Budget.parse(kwargs[REQUEST_KEY])
        except BudgetError as error:
            raise BudgetError(f"{REQUEST_KEY}: {error}") from None
        pairs = ((own.share, self.budget.share), (own.tokens, self.budget.tokens))
        if any(mine is not None and limit is not None and mine > limit for mine, limit in pairs):
            raise _too_much(own, self.budget)
        return own

    def tokens(self, layout: Layout, own: Budget) -> int:
        """Visual tokens that an image keeps under a request's budget, newlines of an untouched image included.

        Raises:
            BudgetError: nothing is left of the image, or more than the server's budget allows.
        """
        count = kept_tokens(layout, own)
        if own != self.budget and count > kept_tokens(layout, self.budget):
            raise _too_much(own, self.budget)
        return count


def written(budget: Budget) -> str:
    """A budget as text, the same for equal budgets: "1/5" or "576". `read` is the way back."""
    return str(budget.share.limit_denominator(1_000_000)) if budget.share is not None else str(budget.tokens)


def read(text: str) -> Budget:
    """The budget that `written` wrote."""
    return Budget.parse(Fraction(text))


def _too_much(own: Budget, server: Budget) -> BudgetError:
    return BudgetError(
        f"{REQUEST_KEY} {_spoken(own)} is above the server's budget {_spoken(server)}: a request may only lower it"
    )


def _spoken(budget: Budget) -> str:
    return f"{budget.tokens} tokens" if budget.tokens is not None else f"{float(budget.share or 0):g}"
