"""Mistral 3: Pixtral encoder at native resolution, no CLS, a 2 x 2 patch merger, a tag behind each row of tokens.

The attention received stands in for a CLS row; a token has the mean of the four patches that the merger joins. All
pictures of a call are one sequence in which each attends to itself alone. The average runs over all of its queries, so
what a picture receives is scaled to its own: it sums to 1, whatever else is in the batch. With one partition a picture
the initial layer decides nothing; it is shown by `hired view`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hired.core.layout import Layout
from hired.errors import InputsError, UnsupportedModelError
from hired.families.base import Encoder, Family, Size, core_model, match_sizes, unwrapped, used_states
from hired.families.native import Grid, by_picture, native_layout
from hired.families.squares import picture_sizes


@dataclass(frozen=True)
class Pixtral(Encoder):
    """The encoder's parts, and the model's `patch_merger`, as what it merges depends on the picture's grid."""

    merger: Any = None


class Mistral3(Family):
    """Facts: `transformers.models.mistral3`."""

    name: ClassVar[str] = "Mistral 3"
    model_types: ClassVar[tuple[str, ...]] = ("mistral3",)
    classes: ClassVar[str] = "Mistral3ForConditionalGeneration (Mistral Small 3.1, 3.2, Ministral 3)"
    encoder: ClassVar[str] = "Pixtral, native resolution, no CLS token: attention received, pooled over 2 x 2 patches"
    partitions: ClassVar[str] = "the whole picture"
    tokens: ClassVar[str] = "1 per 28 x 28 px, a tag behind each row"
    verified: ClassVar[str] = "random tiny models; real weights not tried"
    image_keys: ClassVar[tuple[str, ...]] = ("pixel_values", "image_sizes")
    batched: ClassVar[bool] = False

    def parts(self, model: Any) -> Encoder:
        """The tower's parts."""
        core, used = core_model(model), model.config.vision_feature_layer
        _check_tower(model)
        tower = unwrapped(core.vision_tower)
        layers = tower.transformer.layers
        states = used_states(used, len(layers))
        if not 1 <= max(states) <= len(layers):
            raise UnsupportedModelError(
                f"vision_feature_layer={used} is not the output of one of {len(layers)} encoder layers"
            )
        merger = unwrapped(unwrapped(core.multi_modal_projector).patch_merger)
        return Pixtral(tower=tower, layers=layers, states=states, cls=None, attends="attention", merger=merger)

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """One partition an image, of the size in `image_sizes`: that of the resized picture, not of the original."""
        _check_tower(model)
        unit = int(model.config.vision_config.patch_size) * int(model.config.spatial_merge_size)
        pixels, channels = inputs["pixel_values"], int(model.config.vision_config.num_channels)
        if not isinstance(pixels, Tensor) or pixels.dim() != 4 or pixels.shape[1] != channels:
            raise InputsError(
                f"pixel_values must be (images, {channels}, height, width): use the model's own processor with"
                ' return_tensors="pt"'
            )
        shown = picture_sizes(inputs, None)
        match_sizes(sizes, len(shown))
        for width, height in shown:
            if width > pixels.shape[3] or height > pixels.shape[2] or width % unit or height % unit:
                raise InputsError(
                    f"image_sizes tell of a picture of {width} x {height} pixels, which pixel_values"
                    f" {tuple(pixels.shape)} do not hold as tokens of {unit} x {unit}: pass on all that the model's own"
                    " processor returned"
                )
        for size, resized in zip(sizes or (), shown, strict=False):
            _check_size(size, resized, unit)
        return [
            native_layout((height // unit, width // unit), sizes[index] if sizes else None, (width, height))
            for index, (width, height) in enumerate(shown)
        ]

    def first_rows(self, rows: list[Tensor], encoder: Any, layouts: list[Layout]) -> list[Tensor]:
        """Token scores by picture; `encoder` is a `Pixtral`."""
        merges = [_merge(encoder.merger, layout.cells) for layout in layouts]
        each = by_picture(rows, [merge.numel() for merge in merges])
        return [
            (heads / heads.sum(-1, keepdim=True))[:, merge.to(heads.device)].mean(-1)
            for heads, merge in zip(each, merges, strict=True)
        ]

    def last_rows(self, rows: list[Tensor], encoder: Encoder, layouts: list[Layout]) -> list[Tensor]:
        """Token scores by picture, of its one partition."""
        return [heads[None] for heads in self.first_rows(rows, encoder, layouts)]


def _check_tower(model: Any) -> None:
    kind = model.config.vision_config.model_type
    if kind != "pixtral":
        raise UnsupportedModelError(f"the vision encoder {kind!r} is not supported here: known is 'pixtral'")


def _merge(merger: Any, grid: Grid) -> Tensor:
    """(N, k) int64, the patches of each token, from the model's own merger run on patch indices.

    Args:
        merger: the model's `patch_merger`.
        grid: (rows, columns) of tokens.
    """
    factor, patch = int(merger.spatial_merge_size), int(merger.patch_size)
    rows, columns = (count * factor for count in grid)
    index = torch.arange(rows * columns, dtype=torch.float32)[:, None]
    # Its code without its weights, which would mix the indices.
    bare = SimpleNamespace(spatial_merge_size=factor, patch_size=patch, merging_layer=lambda joined: joined)
    joined: Tensor = type(merger).forward(bare, index, [(rows * patch, columns * patch)])
    return joined.to(torch.int64)


def _check_size(size: Size, resized: Size, unit: int) -> None:
    """Raises `InputsError` for a picture that the processor would not resize to `resized`.

    It scales a picture down if at all, rounds both sides down to whole pixels, then up to whole tokens.
    """
    low, high = 1.0, float("inf")
    for length, edge in zip(size, resized, strict=True):
        low, high = max(low, length / (edge + 1)), min(high, length / (edge - unit + 1))
    if low > high:
        raise InputsError(
            f"images= holds a picture of {size[0]} x {size[1]} pixels, which is not resized to the {resized[0]} x"
            f" {resized[1]} that the inputs hold: give the pictures the inputs were made from"
        )
