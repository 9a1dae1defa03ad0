"""Second stage: one run of the vision encoder, reading attention on the way."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hired.core.image import Attention
from hired.encoding.taps import Tap, tapping
from hired.errors import UnsupportedModelError
from hired.reduction.plan import Plan


@dataclass(frozen=True)
class Encoded:
    """What the vision encoder gave.

    Attributes:
        features: one (T, hidden) tensor an image, as the untouched model would hand it to its LLM.
        attention: one entry an image; empty entries where the method reads none.
    """

    features: list[Tensor]
    attention: list[Attention]


def encode(plan: Plan) -> Encoded:
    """Encodes all images of the plan, once."""
    if not plan.has_images:
        return Encoded([], [])
    family, parts, method = plan.family, plan.encoder, plan.method
    first = last = None
    if parts is not None:
        if method.reads_first:
            first = Tap(parts.first, parts.cls, family.full_images(plan.layouts).to(plan.inputs["pixel_values"].device))
        if method.reads_last:
            last = Tap(parts.last, parts.cls)
    taps = [tap for tap in (first, last) if tap is not None]
    trains = torch.is_grad_enabled() and bool(plan.model.training)
    with torch.set_grad_enabled(trains), tapping(parts.tower if parts else None, taps):
        features = family.encode(plan.model, plan.inputs)
    for feature, layout in zip(features, plan.layouts, strict=True):
        if feature.shape[0] != layout.tokens_full:
            raise UnsupportedModelError(
                f"the encoder gave {feature.shape[0]} visual tokens where {layout.tokens_full} were expected:"
                " this checkpoint does not work as its family does"
            )
    count = len(plan.layouts)
    firsts = list(family.patch_rows(first.rows)) if first else [None] * count
    partitions = [layout.partitions for layout in plan.layouts]
    lasts = list(torch.split(family.patch_rows(last.rows), partitions)) if last else [None] * count
    return Encoded(features, [Attention(f, r) for f, r in zip(firsts, lasts, strict=True)])
