"""InternVL: tiles and a thumbnail behind them, InternViT with CLS, pixel shuffle, an MLP.

The CLS token is dropped before the shuffle, but it has attended until then, so its rows tell as in the paper.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from hired.core.layout import Layout
from hired.errors import InputsError, UnsupportedModelError
from hired.families.base import Encoder, Family, Limits, Size, core_model, tensor_rows, unwrapped, used_states
from hired.families.tiles import grids_of, merged, placeholder_runs, squeezed_layout, tiles_of_runs


class InternVL(Family):
    """Facts: `transformers.models.internvl`; its processor cuts with GotOcr2's rule."""

    name: ClassVar[str] = "InternVL"
    model_types: ClassVar[tuple[str, ...]] = ("internvl",)
    classes: ClassVar[str] = "InternVLForConditionalGeneration (InternVL3, 3.5; -hf checkpoints)"
    encoder: ClassVar[str] = "InternViT, CLS token (dropped before the pixel shuffle)"
    partitions: ClassVar[str] = "thumbnail + r x c tiles"
    tokens: ClassVar[str] = "256 a tile at 448 px"
    verified: ClassVar[str] = "random tiny models; real weights not tried"
    full_last: ClassVar[bool] = True
    limited: ClassVar[str | None] = "tiles"

    def parts(self, model: Any) -> Encoder:
        """The tower's parts; several feature layers are what the model itself does not support."""
        tower = unwrapped(core_model(model).vision_tower)
        if model.config.vision_config.model_type != "internvl_vision":
            raise UnsupportedModelError(
                f"the vision encoder {model.config.vision_config.model_type!r} is not supported here: known is"
                " 'internvl_vision'"
            )
        layers = tower.encoder.layer
        states = used_states(model.config.vision_feature_layer, len(layers))
        return Encoder(tower=tower, layers=layers, states=states, cls=0, merge=_merge(model)[0], attends="attention")

    def container(self, features: list[torch.Tensor]) -> Any:
        """One tensor of single rows."""
        return tensor_rows(features)

    def blank_inputs(self, model: Any, sizes: list[Size], limits: Limits | None = None) -> dict[str, torch.Tensor]:
        """One row of placeholders, pictures apart, and pixels."""
        if limits is None:
            return super().blank_inputs(model, sizes)
        side, token = _side(model), self.image_token(model)
        grids = [get_optimal_tiled_canvas(size[::-1], (side, side), *limits) for size in sizes]
        tiles = [columns * rows + (columns * rows > 1) for columns, rows in grids]
        own = [torch.full((count * _merge(model)[1].numel() + 1,), token) for count in tiles]
        for ids in own:
            ids[-1] = token - 1 if token else 1  # what ends a run of placeholders
        return {
            "input_ids": torch.cat(own)[None],
            "pixel_values": torch.empty(sum(tiles), 3, side, side, device="meta"),
        }

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """One run of placeholders an image; its length tells the tiles."""
        if model.config.vision_feature_select_strategy != "default":
            raise UnsupportedModelError('only vision_feature_select_strategy="default" is supported for InternVL')
        pixels, side = inputs["pixel_values"], _side(model)
        if not isinstance(pixels, torch.Tensor) or pixels.shape[1:] != (3, side, side):
            raise InputsError(f"pixel_values must be (tiles, 3, {side}, {side}): use the model's own processor")
        cells = _merge(model)[1]
        runs = placeholder_runs(inputs["input_ids"], self.image_token(model))
        counts = tiles_of_runs(runs, cells.numel(), pixels.shape[0])

        def canvas(size: Size, most: int) -> tuple[int, int]:
            found: tuple[int, int] = get_optimal_tiled_canvas(size[::-1], (side, side), most, most)
            return found

        along = _patches(model) * model.config.downsample_ratio
        shape = (round(along), round(along))
        grids = grids_of(counts, pixels, sizes, canvas)
        return [
            squeezed_layout(grid, cells, shape, sizes[index] if sizes else None, side)
            for index, grid in enumerate(grids)
        ]


def _side(model: Any) -> int:
    height, width = model.config.vision_config.image_size
    if height != width:
        raise UnsupportedModelError(f"tiles of {height} x {width} pixels are not supported: only squares are")
    return int(height)


def _patches(model: Any) -> int:
    """Patches along the side of a tile."""
    return _side(model) // int(model.config.vision_config.patch_size[0])


def _merge(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model's pixel shuffle merges, as `merged` gives it."""
    patches, ratio = _patches(model), model.config.downsample_ratio
    index = torch.arange(patches * patches, dtype=torch.float32).view(1, patches, patches, 1)
    shuffled = core_model(model).pixel_shuffle(index, scale_factor=ratio)
    return merged(shuffled.flatten(0, 2), patches, round(1 / ratio))
