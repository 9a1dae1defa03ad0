"""Exact token counts for pictures of given sizes: the layouts of the real run, without pictures or weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hired.core.allocate import share_out
from hired.core.budget import Budget, EncoderBudget
from hired.core.layout import Layout
from hired.families import family_of
from hired.families.base import Limits, Size

__all__ = ["image_layouts", "kept_tokens", "max_positions", "narrowed"]


def max_positions(config: Any) -> int | None:
    """Positions that an LLM was made for, where its configuration tells; stretched ones count.

    Args:
        config: of the whole model.
    """
    text = getattr(config, "text_config", config)
    value = getattr(text, "max_position_embeddings", None)
    if value is None:
        return None
    rope = getattr(text, "rope_parameters", None) or {}
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings") or value
    stretched = int(factor * original) if isinstance(factor, (int, float)) else 0
    return max(int(value), stretched)


def image_layouts(model: Any, sizes: Sequence[Size], limits: Limits | None = None) -> list[Layout]:
    """The layout of each picture, as `hired.reduce` would find it.

    Args:
        model: the model, or its `hired.costs.shapes.meta_model`.
        sizes: (width, height) of every picture in pixels.
        limits: those of the model's processor, where its family is `limited`.

    Raises:
        UnsupportedModelError: a model or encoder HiRED does not know, or one whose limits are not told.
        InputsError: a picture that the processor refuses.
    """
    family, pictures = family_of(model), list(sizes)
    return family.layouts(model, family.blank_inputs(model, pictures, limits), pictures)


def kept_tokens(layout: Layout, budget: Budget) -> int:
    """Visual tokens of one image that reach the LLM, newlines dropped.

    Raises:
        BudgetError: a budget that leaves no token.
    """
    total = budget.allowance(layout)
    return layout.tokens_full if total is None else min(total, layout.tokens_real)


def narrowed(layout: Layout, budget: Budget, encoder_budget: EncoderBudget, alpha: float = 0.5) -> list[int]:
    """Patches that each partition of one image goes on with under an encoder budget, the full image first.

    The full image's share is exact. What the sub-images get depends on the picture: here they get equal shares. The
    sum, which the cost hangs on, differs from the real one only by rounding, unless a share reaches its partition's
    size.
    """
    total = budget.allowance(layout)
    if total is None:
        return [layout.cells_per_partition] * layout.partitions
    tiles = layout.partitions - 1
    even = layout.rows.new_ones(tiles) if tiles else None
    shares = share_out(min(total, layout.tokens_real), alpha, layout.capacity, even).tolist()
    return [encoder_budget.patches(share, layout.cells_per_partition) for share in shares]
