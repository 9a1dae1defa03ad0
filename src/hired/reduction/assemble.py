"""Fifth stage: the mapping that `generate` and `forward` take."""

from collections.abc import Mapping
from itertools import accumulate, islice
from typing import Any

import torch
from torch import Tensor

from hired.core.image import Attention
from hired.core.transfer import moved_to
from hired.reduction.cut import cut
from hired.reduction.encoded import Encoded
from hired.reduction.plan import Plan
from hired.reduction.reduced import ENCODER_OUTPUTS, ReducedInputs, Report

__all__ = ["assemble"]


def assemble(plan: Plan, encoded: Encoded, kept: list[Tensor | None], features: list[Tensor]) -> ReducedInputs:
    """Puts the features in place of the pixels and cuts every per-token entry down to the kept tokens.

    Inputs of which nothing is dropped stay what they are.

    Args:
        plan: the plan.
        encoded: what the encoder gave.
        kept: for every image sorted (K,) int64 indices into its untouched tokens, None to keep all.
        features: one (K, hidden) tensor an image, from `project`.
    """
    data = dict(plan.inputs)
    # What is reported is kept as long as the inputs: the initial layer's rows and no more.
    report = Report(plan.layouts, kept, [Attention(each.first) for each in encoded.attention])
    if all(rows is None for rows in kept):
        return ReducedInputs(data, report, plan.model)
    for key in plan.family.image_keys:
        data.pop(key, None)
    data.update(_cut(plan, data, kept))
    if plan.family.grid_positions:
        plan.family.remember(plan.model, data["position_ids"], data.get("attention_mask"))
    data[ENCODER_OUTPUTS] = {"image": plan.family.container(features)}
    return ReducedInputs(data, report, plan.model)


def _cut(plan: Plan, data: Mapping[str, Any], kept: list[Tensor | None]) -> dict[str, Any]:
    """The per-token entries without the placeholders of dropped tokens."""
    if plan.grid_positions is not None:
        data = {**data, "position_ids": plan.grid_positions}
    pairs = zip(plan.layouts, kept, strict=True)
    dropped = [0 if left is None else layout.tokens_full - left.numel() for layout, left in pairs]
    known = plan.beforehand
    if known is not None and known.dropped == dropped:
        stay, made, per_row = known.stay, known.order, known.per_row
    else:
        stay, made, per_row = _stay(plan, data["input_ids"].device, kept), None, _per_row(plan, dropped)
    return cut(
        data,
        stay,
        per_row,
        plan.rows,
        made=made,
        pad_id=_pad_id(plan.model),
        positions=plan.positions,
        grid=plan.family.grid_positions,
        apart_as=plan.model.dtype if made is None and _takes_masks(plan.model) else None,
    )


def _stay(plan: Plan, device: torch.device, kept: list[Tensor | None]) -> Tensor:
    """(batch, length) bool of the new part, False for placeholders of dropped tokens."""
    rows = plan.rows
    ends = list(accumulate((layout.tokens_full for layout in plan.layouts), initial=0))
    stay = torch.ones(rows.here.size, dtype=torch.bool, device=device)
    every = moved_to(device, torch.from_numpy(rows.places))
    for start, end, left in zip(ends, ends[1:], kept, strict=False):
        if left is not None:
            places = every[start:end]
            stay.index_fill_(0, places, False).index_fill_(0, places[left.to(device)], True)
    return stay.view(rows.here.shape)


def _per_row(plan: Plan, dropped: list[int]) -> list[int]:
    """Tokens that each row loses, from what each picture does."""
    left = iter(dropped)
    return [sum(islice(left, images)) for images in plan.images_per_row]


def _takes_masks(model: Any) -> bool:
    """Whether one mask of (batch, 1, length, length) can serve all layers of the language model."""
    text = model.config.get_text_config()
    layers = getattr(text, "layer_types", None) or ["full_attention"]
    windows = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    kernel = getattr(text, "_attn_implementation", None)
    return set(layers) == {"full_attention"} and not windows and kernel in ("sdpa", "eager")


def _pad_id(model: Any) -> int:
    """Id to pad with where the inputs show none."""
    text = getattr(model.config, "text_config", model.config)
    generation = getattr(model, "generation_config", None)
    for holder, name in ((generation, "pad_token_id"), (text, "pad_token_id"), (text, "eos_token_id")):
        value = getattr(holder, name, None)
        if isinstance(value, int):
            return value
        if isinstance(value, list) and value:
            return int(value[0])
    return 0
