"""The methods, one registry line each."""

from typing import cast

from hired.core.budget import check_alpha
from hired.core.image import READINGS
from hired.errors import BudgetError
from hired.methods.base import Method
from hired.methods.baselines import Overview, Random, Uniform
from hired.methods.cdpruner import CDPruner
from hired.methods.divprune import DivPrune
from hired.methods.globalcom2 import GlobalCom2
from hired.methods.hiprune import HiPrune
from hired.methods.hired import HiRED
from hired.methods.holov import HoloV
from hired.methods.otprune import OTPrune
from hired.methods.prumerge import PruMerge, PruMergePlus
from hired.methods.published import Published
from hired.methods.scope import Scope
from hired.methods.visionzip import VisionZip
from hired.methods.vispruner import VisPruner

__all__ = ["METHODS", "Method", "resolve"]

METHODS: dict[str, type[Method]] = {
    "hired": HiRED,
    "published": Published,
    "visionzip": VisionZip,
    "prumerge": PruMerge,
    "prumerge+": PruMergePlus,
    "vispruner": VisPruner,
    "divprune": DivPrune,
    "cdpruner": CDPruner,
    "scope": Scope,
    "holov": HoloV,
    "globalcom2": GlobalCom2,
    "hiprune": HiPrune,
    "otprune": OTPrune,
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
    lacking = [name for name in ("name", "reads", "select") if not hasattr(method, name)]
    if lacking or isinstance(method, type):
        raise BudgetError(
            f"method must be one of {', '.join(METHODS)}, or an instance of a class with name, reads and select, got"
            f" {method!r}"
        )
    reads = getattr(method, "reads", None)
    if not isinstance(reads, tuple) or not set(reads) <= set(READINGS):
        raise BudgetError(f"reads of a method must be a tuple of {', '.join(map(repr, READINGS))}, got {reads!r}")
    return cast(Method, method)
