"""Fifth stage: the mapping that `generate` and `forward` take."""

from collections.abc import Mapping
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature

from hired.core.image import Attention
from hired.core.layout import Layout
from hired.reduction.cut import cut
from hired.reduction.encode import Encoded
from hired.reduction.plan import Plan, Positions
from hired.reduction.selection import ImageSelection

__all__ = ["Positions", "ReducedInputs", "assemble"]

ENCODER_OUTPUTS = "mm_encoder_outputs"


class ReducedInputs(BatchFeature):  # type: ignore[misc]
    """Inputs for `model.generate(**inputs)` and `model(**inputs)`, any number of times.

    A `BatchFeature` like the processor's, with the image features in `mm_encoder_outputs` in place of pixels.
    """

    def __init__(
        self,
        data: dict[str, Any],
        layouts: list[Layout] | None = None,
        kept: list[Tensor | None] | None = None,
        attention: list[Attention] | None = None,
    ) -> None:
        super().__init__(data)
        self._parts = (layouts or [], kept or [], attention or [])

    def __getitem__(self, item: Any) -> Any:
        """The entry; encoder outputs come as a fresh copy, because beam search changes those it is given."""
        value = super().__getitem__(item)
        if item != ENCODER_OUTPUTS:
            return value
        return {modality: type(output)(**output) for modality, output in value.items()}

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: the base class knows of its `data` only."""
        return {**super().__getstate__(), "parts": self._parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The other way round."""
        super().__setstate__(state)
        self._parts = state["parts"]

    def to(self, *args: Any, **kwargs: Any) -> "ReducedInputs":
        """Moves (and casts floating point) tensors in place, the features among them, like `BatchFeature.to`."""
        outputs = self.data.pop(ENCODER_OUTPUTS, None)
        super().to(*args, **kwargs)
        if outputs is not None:
            for output in outputs.values():
                for name, value in output.items():
                    output[name] = _move(value, args, kwargs)
            self.data[ENCODER_OUTPUTS] = outputs
        return self

    @cached_property
    def selection(self) -> list[ImageSelection]:
        """What was kept, one entry an image; worked out on first use."""
        return [ImageSelection.of(*parts) for parts in zip(*self._parts, strict=True)]


def _move(features: Any, args: Any, kwargs: Any) -> Any:
    if isinstance(features, Tensor):
        return features.to(*args, **kwargs)
    return [feature.to(*args, **kwargs) for feature in features]


def assemble(plan: Plan, encoded: Encoded, kept: list[Tensor | None], features: list[Tensor]) -> ReducedInputs:
    """Puts the features in place of the pixels and cuts every per-token entry down to the kept tokens.

    Args:
        plan: the plan.
        encoded: what the encoder gave.
        kept: for every image sorted (K,) int64 indices into its untouched tokens, None to keep all.
        features: one (K, hidden) tensor an image, from `project`.
    """
    data = dict(plan.inputs)
    if not plan.has_images:
        return ReducedInputs(data)
    whole = all(rows is None for rows in kept)
    for key in plan.family.image_keys:
        if not (whole and key in plan.family.grid_keys):
            data.pop(key, None)
    if not whole:
        data.update(_cut(plan, data, kept))
    data[ENCODER_OUTPUTS] = {"image": plan.family.container(features)}
    return ReducedInputs(data, plan.layouts, kept, encoded.attention)


def _cut(plan: Plan, data: Mapping[str, Any], kept: list[Tensor | None]) -> dict[str, Any]:
    """The per-token entries without the placeholders of dropped tokens."""
    if plan.grid_positions is not None and data.get("position_ids") is None:
        data = {**data, "position_ids": plan.grid_positions}
    ids = data["input_ids"]
    starts = list(accumulate((layout.tokens_full for layout in plan.layouts), initial=0))
    stay = torch.ones(ids.numel(), dtype=torch.bool, device=ids.device)
    dropped = []
    for start, end, rows in zip(starts, starts[1:], kept, strict=False):
        dropped.append(0 if rows is None else end - start - rows.numel())
        if rows is not None:
            places = plan.placeholders[start:end]
            stay.index_fill_(0, places, False).index_fill_(0, places[rows.to(ids.device)], True)
    per_row, used = [], 0
    for images in plan.images_per_row:
        per_row.append(sum(dropped[used : used + images]))
        used += images
    return cut(
        data,
        stay.view_as(ids),
        per_row,
        plan.padding,
        pad_id=_pad_id(plan.model),
        positions=plan.positions,
    )


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
