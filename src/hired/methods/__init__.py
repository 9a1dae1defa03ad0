"""The methods, one registry line each."""

from typing import cast

from hired.core.budget import check_alpha
from hired.errors import BudgetError
from hired.methods.base import Method
from hired.methods.baselines import Overview, Random, Uniform
from hired.methods.hired import HiRED
from hired.methods.published import Published

__all__ = ["METHODS", "Method", "resolve"]

METHODS: dict[str, type[Method]] = {
    "hired": HiRED,
    "published": Published,
    "uniform": Uniform,
    "random": Random,
    "overview": Overview,
}
"""Methods by the name that `hired.reduce(method=...)` takes."""

VARIANTS = {"paper": "hired", "published": "published"}


def resolve(method: str | Method, variant: str, alpha: float) -> Method:
    """The method object for what the caller passed.

    Raises:
        BudgetError: an unknown method or variant, an object that is no method, or `alpha` outside 0..1.
    """
    alpha = check_alpha(alpha)
    if not isinstance(method, str):
        return _checked(method)
    if variant not in VARIANTS:
        raise BudgetError(f"unknown variant {variant!r}: use one of {', '.join(VARIANTS)}")
    name = VARIANTS[variant] if method == "hired" else method
    if name not in METHODS:
        raise BudgetError(f"unknown method {method!r}: use one of {', '.join(METHODS)}")
    chosen = METHODS[name]
    takes_alpha = "alpha" in getattr(chosen, "__dataclass_fields__", {})
    return chosen(**({"alpha": alpha} if takes_alpha else {}))


def _checked(method: object) -> Method:
    """A caller's own method, an instance of a class such as `Method` describes."""
    lacking = [name for name in ("name", "reads_first", "reads_last", "select") if not hasattr(method, name)]
    if lacking or isinstance(method, type):
        raise BudgetError(
            f"method must be one of {', '.join(METHODS)}, or an instance of a class with name, reads_first, reads_last"
            f" and select, got {method!r}"
        )
    return cast(Method, method)
