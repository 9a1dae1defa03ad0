"""What a server and a request may ask for."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from hired.core.budget import Budget, check_alpha
from hired.core.layout import Layout
from hired.costs.tokens import kept_tokens
from hired.errors import BudgetError
from hired.methods import METHODS, Method, resolve
from hired.vllm.versions import check

REQUEST_KEY = "hired_budget"
"""What a request names its own budget in `mm_processor_kwargs`."""

_KEYS = ("budget", "alpha", "method")


def _unfit(method: type[Method]) -> str | None:
    """Why a method cannot be served, None where it can."""
    if "question" in method.reads:
        return "it reads the question, and vLLM encodes a picture once for all questions"
    if not getattr(method, "exact", True):
        return "it does not meet the budget to the token, and vLLM counts a picture's tokens before it is encoded"
    return None


SERVABLE = tuple(name for name, method in METHODS.items() if _unfit(method) is None)
"""Names of the methods that a server can keep tokens by."""


def check_method(name: object) -> str:
    """The name as it is.

    Raises:
        BudgetError: no method of that name, or one that cannot be served.
    """
    if isinstance(name, str) and name in SERVABLE:
        return name
    why = _unfit(METHODS[name]) if isinstance(name, str) and name in METHODS else None
    told = f"unknown method {name!r}" if why is None else f"method {name!r} cannot be served: {why}"
    raise BudgetError(f"{told}; use one of {', '.join(SERVABLE)}")


@dataclass(frozen=True)
class Settings:
    """A server's settings: the entry `hired` of the model's configuration.

    Attributes:
        budget: what an image may keep.
        alpha: the full image's share of it, for methods that take one.
        method: what the tokens are chosen by, one of `SERVABLE`.
    """

    budget: Budget
    alpha: float = 0.5
    method: str = "hired"

    @property
    def takes_alpha(self) -> bool:
        """Whether `alpha` means anything to the method."""
        return hasattr(self.chosen(), "alpha")

    def chosen(self) -> Method:
        """The method itself, as `hired.reduce` would make it."""
        return resolve(self.method, "paper", self.alpha)

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
                f'"hired" in --hf-overrides must be {{"budget": ...}} and perhaps "alpha" and "method", got'
                f' {given!r}: for example {{"hired": {{"budget": 0.2}}}}'
            )
        alpha, method = check_alpha(given.get("alpha", 0.5)), check_method(given.get("method", "hired"))
        return cls(Budget.parse(given["budget"]), alpha, method)

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
