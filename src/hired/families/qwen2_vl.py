"""Qwen2-VL and Qwen2.5-VL: native resolution, no CLS, a 2 x 2 merger inside the tower, M-RoPE positions.

The attention received stands in for a CLS row; a token has the mean of the four patches that the merger joins, which
follow each other in the encoder's sequence. Qwen2.5-VL's encoder attends in windows but for a few layers: what a patch
receives from its window alone does not compare with others', so the first and the last layer with full attention are
read. With one partition a picture the first one decides nothing; it is shown by `hired view`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.vision_utils import get_vision_window_index

from hired.core.layout import Layout
from hired.core.transfer import moved_to
from hired.errors import InputsError, UnsupportedModelError
from hired.families.base import Encoder, Family, Limits, Size, core_model, match_sizes, unwrapped
from hired.families.native import by_picture, native_layout


class Qwen2VL(Family):
    """Facts: `transformers.models.qwen2_vl`."""

    name: ClassVar[str] = "Qwen2-VL"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    classes: ClassVar[str] = "Qwen2VLForConditionalGeneration"
    encoder: ClassVar[str] = "native resolution, no CLS token: attention received, pooled over 2 x 2 patches"
    partitions: ClassVar[str] = "the whole picture"
    tokens: ClassVar[str] = "1 per 28 x 28 px"
    verified: ClassVar[str] = "random tiny models; real weights not tried"
    image_keys: ClassVar[tuple[str, ...]] = ("pixel_values", "image_grid_thw")
    grid_positions: ClassVar[bool] = True
    batched: ClassVar[bool] = False
    limited: ClassVar[str | None] = "pixels"

    def parts(self, model: Any) -> Encoder:
        """The tower's parts; its layers all attend to the whole picture."""
        tower = unwrapped(core_model(model).visual)
        return Encoder(tower=tower, layers=tower.blocks, states=(len(tower.blocks),), cls=None, attends="attn")

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """One partition an image, of as many tokens as `image_grid_thw` tells."""
        vision = model.config.vision_config
        patch, merge = int(vision.patch_size), int(vision.spatial_merge_size)
        grids = _grids(inputs)
        match_sizes(sizes, len(grids))
        if any(frames != 1 for frames, _, _ in grids):
            raise InputsError(f"image_grid_thw {grids} tells of more than one frame: videos are not supported yet")
        if any(rows % merge or columns % merge for _, rows, columns in grids):
            raise InputsError(
                f"image_grid_thw {grids} cannot be merged {merge} x {merge}: use the model's own processor"
            )
        patches = sum(rows * columns for _, rows, columns in grids)
        pixels, values = inputs["pixel_values"], int(vision.in_channels * vision.temporal_patch_size) * patch**2
        if not isinstance(pixels, Tensor) or pixels.shape != (patches, values):
            shape = tuple(pixels.shape) if isinstance(pixels, Tensor) else type(pixels).__name__
            raise InputsError(
                f"pixel_values {shape} do not hold the {patches} patches of {values} values that image_grid_thw tells"
                " of: pass on all that the processor returned"
            )
        return [
            native_layout(
                (rows // merge, columns // merge), sizes[index] if sizes else None, (columns * patch, rows * patch)
            )
            for index, (_, rows, columns) in enumerate(grids)
        ]

    def blank_inputs(self, model: Any, sizes: list[Size], limits: Limits | None = None) -> dict[str, Tensor]:
        """Grids and pixels, and neither text nor video."""
        if limits is None:
            return super().blank_inputs(model, sizes)
        vision = model.config.vision_config
        patch, factor = int(vision.patch_size), int(vision.patch_size * vision.spatial_merge_size)
        try:
            shown = [smart_resize(height, width, factor, *limits) for width, height in sizes]
        except ValueError as error:
            raise InputsError(f"a picture of {sizes} pixels (width, height) cannot be shown: {error}") from None
        grids = torch.tensor([(1, height // patch, width // patch) for height, width in shown])
        values = int(vision.in_channels * vision.temporal_patch_size) * patch**2
        return {
            "pixel_values": torch.empty(int(grids.prod(1).sum()), values, device="meta"),
            "image_grid_thw": grids,
        }

    def positions(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        """(3, batch, length): time, row and column, as the model itself counts them on the full prompt."""
        types = inputs.get("mm_token_type_ids")
        if types is None:
            types = (inputs["input_ids"] == self.image_token(model)).to(torch.int64)
        found: Tensor = core_model(model).get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=types,
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=inputs.get("attention_mask"),
        )[0]
        return found

    def remember(self, model: Any, positions: Tensor, mask: Tensor | None) -> None:
        """Sets `rope_deltas`, by which the model itself counts on, and which it does not find out where it is given
        positions: (batch, 1), from tokens so far to the next position.
        """
        axes = positions[-3:] if positions.dim() == 3 else positions[None]
        valid = torch.ones_like(axes[0]) if mask is None else mask[:, -axes.shape[-1] :].ne(0).to(torch.int64)
        last = axes.masked_fill(valid == 0, 0).amax((0, 2))
        core_model(model).rope_deltas = (last + 1 - valid.sum(1))[:, None]

    def first_rows(self, rows: list[Tensor], encoder: Encoder, layouts: list[Layout]) -> list[Tensor]:
        """Token scores by picture."""
        unit = int(encoder.tower.spatial_merge_size) ** 2
        counts = [layout.tokens_full for layout in layouts]
        each = by_picture(rows, [count * unit for count in counts])
        pooled = torch.cat([heads.reshape(len(heads), -1, unit).mean(-1) for heads in each], -1)
        return list(torch.split(self.in_order(pooled, encoder, layouts), counts, -1))

    def last_rows(self, rows: list[Tensor], encoder: Encoder, layouts: list[Layout]) -> list[Tensor]:
        """Token scores by picture, of its one partition."""
        return [heads[None] for heads in self.first_rows(rows, encoder, layouts)]

    def in_order(self, scores: Tensor, encoder: Encoder, layouts: list[Layout]) -> Tensor:
        """(heads, tokens of all pictures) scores in the order of the features, from the encoder's own."""
        return scores


class Qwen25VL(Qwen2VL):
    """Facts: `transformers.models.qwen2_5_vl`."""

    name: ClassVar[str] = "Qwen2.5-VL"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    classes: ClassVar[str] = "Qwen2_5_VLForConditionalGeneration"
    encoder: ClassVar[str] = (
        "native resolution, windows, no CLS token: attention received in the layers with full attention, pooled over"
        " 2 x 2 patches"
    )

    def parts(self, model: Any) -> Encoder:
        """The tower's parts; the first and the last layer without windows are read."""
        tower = unwrapped(core_model(model).visual)
        whole = sorted(int(layer) for layer in model.config.vision_config.fullatt_block_indexes)
        if not whole or whole[-1] >= len(tower.blocks):
            raise UnsupportedModelError(
                f"fullatt_block_indexes={whole} names no layer of {len(tower.blocks)} with full attention"
            )
        return Encoder(
            tower=tower,
            layers=tower.blocks,
            states=(len(tower.blocks),),
            starts=whole[0],
            cls=None,
            tells=whole[-1],
            middles=whole[(len(whole) - 1) // 2],
            attends="attn",
        )

    def in_order(self, scores: Tensor, encoder: Encoder, layouts: list[Layout]) -> Tensor:
        """Undoes the model's sorting by windows, which moves all patches of a token together."""
        tower = encoder.tower
        merge = int(tower.spatial_merge_size)
        grids = torch.tensor([[1, layout.cells[0] * merge, layout.cells[1] * merge] for layout in layouts])
        index, _ = get_vision_window_index(
            grids, spatial_merge_size=merge, window_size=tower.window_size, patch_size=tower.patch_size
        )
        return scores[:, moved_to(scores.device, index.argsort())]


def _grids(inputs: Mapping[str, Any]) -> list[list[int]]:
    """(frames, patch rows, patch columns) of every image."""
    told = inputs.get("image_grid_thw")
    if not isinstance(told, Tensor) or told.dim() != 2 or told.shape[1] != 3:
        raise InputsError("image_grid_thw is missing beside pixel_values: pass on all that the processor returned")
    grids: list[list[int]] = told.tolist()
    return grids
