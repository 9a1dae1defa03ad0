"""What a server keeps of pictures, and how many requests its KV cache holds for it. Knows nothing of vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hired.core.budget import Budget
from hired.costs.tokens import kept_tokens
from hired.errors import BudgetError
from hired.vllm.geometry import Geometry

__all__ = ["SIZES", "TEXT", "Row", "rows"]

SIZES = ((336, 336), (672, 672), (1024, 768), (1344, 1344), (1920, 1080), (1240, 1754))
"""Common picture sizes, (width, height) in pixels: the last is an A4 page at 150 dpi."""

TEXT = 128
"""Tokens of a request beside its picture, prompt and answer, that the numbers of requests assume."""


@dataclass(frozen=True)
class Row:
    """One picture size under a server's budget.

    Attributes:
        size: (width, height) in pixels.
        full: its visual tokens in the untouched model.
        kept: those that reach the LLM; None where the budget leaves none and such a picture is refused.
    """

    size: tuple[int, int]
    full: int
    kept: int | None

    @property
    def gain(self) -> float | None:
        """How many times as many requests with this picture and `TEXT` other tokens fit a KV cache."""
        return None if self.kept is None else (self.full + TEXT) / (self.kept + TEXT)

    def fit(self, cache: int, block: int, longest: int) -> tuple[int, int]:
        """Requests with this picture and `TEXT` other tokens that a KV cache holds: untouched, and under the budget.

        Args:
            cache: tokens the KV cache has room for.
            block: tokens in one of its blocks; a request takes whole blocks.
            longest: tokens that one request may have at most; longer ones are refused, and 0 fit.
        """

        def count(visual: int | None) -> int:
            if visual is None or visual + TEXT > longest:
                return 0
            return cache // block // -(-(visual + TEXT) // block)

        return count(self.full), count(self.kept)


def rows(geometry: Geometry, budget: Budget, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Row]:
    """What a server with this budget keeps of pictures of these sizes."""
    found = []
    for width, height in sizes:
        layout = geometry.layout(width, height)
        try:
            count: int | None = kept_tokens(layout, budget)
        except BudgetError:
            count = None
        found.append(Row((width, height), layout.tokens_full, count))
    return found
