"""Third stage: which tokens of each image are kept."""

import torch
from torch import Tensor

from hired.core.image import Image
from hired.reduction.encode import Encoded
from hired.reduction.plan import Plan


def select(plan: Plan, encoded: Encoded) -> list[Tensor | None]:
    """Kept tokens of every image: sorted (K,) int64 indices into its untouched tokens, None where all are kept."""
    kept: list[Tensor | None] = []
    with torch.no_grad():
        shares = encoded.shares or [None] * len(plan.layouts)
        images = zip(plan.placed, plan.totals, encoded.attention, shares, strict=True)
        for layout, total, attention, share in images:
            if layout is None or total is None:
                kept.append(None)
                continue
            if attention.last is not None:
                layout = layout.to(attention.last.device)
            kept.append(plan.method.select(Image(layout, attention, total, plan.newlines, share)))
    return kept
