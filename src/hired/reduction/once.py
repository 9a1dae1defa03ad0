"""One run of the encoder for the choices of many methods and budgets."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from hired.methods import Method
from hired.reduction.encode import encode
from hired.reduction.encoded import Encoded
from hired.reduction.plan import Plan

__all__ = ["counts", "encode_for"]


def encode_for(plan: Plan, methods: Iterable[Method | type[Method]]) -> Encoded:
    """Every token of every image, and all that the methods read.

    What comes back goes with any plan of the same pictures: other methods, budgets and questions.

    Args:
        plan: a plan that drops tokens, so that the encoder is read.
        methods: who will choose.
    """
    return encode(plan, everything=True, reads={name for method in methods for name in method.reads})


def counts(plan: Plan, kept: Sequence[Tensor | None]) -> list[int]:
    """Tokens kept of every image, of the kept rows as `select` gives them."""
    return [layout.tokens_full if row is None else row.numel() for layout, row in zip(plan.layouts, kept, strict=True)]
