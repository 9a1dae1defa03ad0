"""What Aya Vision and Command A Vision share: SigLIP tiles and a thumbnail behind them, pixel shuffle in the projector.

The encoder has no CLS token, so the attention received stands in; it is pooled over the patches that the shuffle
merges.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from hired.core.layout import Layout
from hired.errors import InputsError, UnsupportedModelError
from hired.families.base import Family, Size, core_model, tensor_rows, unwrapped
from hired.families.tiles import (
    Run,
    grids_of,
    merged,
    placeholder_runs,
    squeezed_layout,
    tiles_of_groups,
)


class ShuffledSiglip(Family):
    """A tile is a run of placeholders of its own; a subclass tells which of them end their picture."""

    full_last: ClassVar[bool] = True

    def ends(self, ids: Tensor, runs: list[Run]) -> list[bool]:
        """Which runs are the last of their picture.

        Raises:
            InputsError: `input_ids` that do not tell.
        """
        raise NotImplementedError

    def canvas(self, size: Size, side: int, tiles: int) -> tuple[int, int]:
        """(columns, rows) that the processor cuts a picture into, which gave `tiles` of them."""
        raise NotImplementedError

    def container(self, features: list[Tensor]) -> Any:
        """One tensor of single rows."""
        return tensor_rows(features)

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """Tiles from the placeholders, their grid from the pictures' sizes or from what they show."""
        pixels, side = inputs["pixel_values"], int(model.config.vision_config.image_size)
        if not isinstance(pixels, Tensor) or pixels.shape[1:] != (3, side, side):
            raise InputsError(f"pixel_values must be (tiles, 3, {side}, {side}): use the model's own processor")
        cells = merge_of(model)[1]
        ids = inputs["input_ids"]
        runs = placeholder_runs(ids, self.image_token(model))
        counts = tiles_of_groups(runs, self.ends(ids, runs), cells.numel(), pixels.shape[0])
        grids = grids_of(counts, pixels, sizes, lambda size, tiles: self.canvas(size, side, tiles))
        along = _patches(model) // int(model.config.downsample_factor)
        return [
            squeezed_layout(grid, cells, (along, along), sizes[index] if sizes else None, side)
            for index, grid in enumerate(grids)
        ]


def merge_of(model: Any) -> tuple[Tensor, Tensor]:
    """What the projector's pixel shuffle merges, as `merged` gives it.

    Raises:
        UnsupportedModelError: an encoder other than SigLIP, or patches that the shuffle cannot merge.
    """
    config = model.config
    if config.vision_config.model_type != "siglip_vision_model":
        raise UnsupportedModelError(
            f"the vision encoder {config.vision_config.model_type!r} is not supported here: known is"
            " 'siglip_vision_model'"
        )
    patches, factor = _patches(model), int(config.downsample_factor)
    if patches % factor:
        raise UnsupportedModelError(f"{patches} patches along a tile cannot be merged by {factor}")
    index = torch.arange(patches * patches, dtype=torch.float32).view(1, -1, 1)
    shuffled = unwrapped(core_model(model).multi_modal_projector).pixel_shuffle(index)
    return merged(shuffled.flatten(0, 2), patches, factor)


def _patches(model: Any) -> int:
    """Patches along the side of a tile."""
    config = model.config.vision_config
    return int(config.image_size) // int(config.patch_size)
