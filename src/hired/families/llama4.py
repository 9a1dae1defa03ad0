"""Llama 4: padded tiles between separators, the full image behind them, a ViT with its CLS token last, pixel shuffle.

A partition is one tile. The CLS token is dropped before the shuffle, but it has attended until then, so its rows tell
as in the paper. The grid is certain from `input_ids`: one separator stands between two tiles of a row, another between
rows. The picture keeps its proportions and lies in the top left of the grid; the rest is black, and stays among the
tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.models.llama4.modeling_llama4 import pixel_shuffle
from transformers.utils import ModelOutput

from hired.core.layout import Layout
from hired.errors import InputsError, UnsupportedModelError
from hired.families.base import Encoder, Family, Size, core_model, match_sizes, parameters_at_hand, unwrapped
from hired.families.tiles import (
    Grid,
    Run,
    grid_of_rows,
    merged,
    placeholder_runs,
    squeezed_layout,
    tiles_of_groups,
)

Shown = tuple[float, float]
"""(width, height) of the picture in pixels of the grid of tiles."""


@dataclass
class Unprojected(ModelOutput):  # type: ignore[misc]
    """Features that the model reads as `last_hidden_state`, and that beams find to expand as `pooler_output`."""

    pooler_output: Tensor | None = None

    @property
    def last_hidden_state(self) -> Tensor | None:
        """(tokens, 1, hidden)."""
        return self.pooler_output


class Llama4(Family):
    """Facts: `transformers.models.llama4`."""

    name: ClassVar[str] = "Llama 4"
    model_types: ClassVar[tuple[str, ...]] = ("llama4",)
    classes: ClassVar[str] = "Llama4ForConditionalGeneration (Scout, Maverick)"
    encoder: ClassVar[str] = "Llama 4's own ViT, CLS token at the end (dropped before the pixel shuffle)"
    partitions: ClassVar[str] = "full image + r x c tiles"
    tokens: ClassVar[str] = "144 a tile at 336 px, a separator behind each tile"
    verified: ClassVar[str] = "random tiny models; real weights not tried"
    full_last: ClassVar[bool] = True

    def parts(self, model: Any) -> Encoder:
        """The tower's parts; the model takes its last layer."""
        tower = unwrapped(model.vision_model)
        layers = tower.model.layers
        return Encoder(tower=tower, layers=layers, states=(len(layers),), cls=-1, merge=_merge(model)[0])

    def encode(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        """What the tower gives behind its pixel shuffle; the model itself projects it later."""
        found: Tensor = model.get_image_features(inputs["pixel_values"], return_dict=True).last_hidden_state
        return found.flatten(0, 1)

    def embedded(self, model: Any, features: Tensor) -> Tensor:
        """What the model's projector makes of the tower's tokens."""
        projector = core_model(model).multi_modal_projector
        with parameters_at_hand(projector):
            shown: Tensor = projector(features)
        return shown

    def container(self, features: list[Tensor]) -> Any:
        """One tensor of single rows, under both names."""
        return Unprojected(pooler_output=torch.cat(features)[:, None])

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """Tiles and their grid from the separators in `input_ids`."""
        cells, side = _merge(model)[1], int(model.config.vision_config.image_size)
        pixels, ids = inputs["pixel_values"], inputs["input_ids"]
        if not isinstance(pixels, Tensor) or pixels.shape[1:] != (3, side, side):
            raise InputsError(f"pixel_values must be (tiles, 3, {side}, {side}): use the model's own processor")
        runs = placeholder_runs(ids, self.image_token(model))
        rows, end = ids.tolist(), int(model.config.eoi_token_id)
        ends = [run.end < len(rows[run.row]) and rows[run.row][run.end] == end for run in runs]
        counts = tiles_of_groups(runs, ends, cells.numel(), len(pixels))
        match_sizes(sizes, len(counts))
        along, found, start = round(cells.numel() ** 0.5), [], 0
        for index, count in enumerate(counts):
            own = slice(start, start + count)
            start += count
            grid = _grid(rows, runs[own])
            size = sizes[index] if sizes else None
            found.append(
                squeezed_layout(grid, cells, (along, along), size, side, canvas=_canvas(pixels[own], grid, size, side))
            )
        return found


def _merge(model: Any) -> tuple[Tensor, Tensor]:
    """What the tower's pixel shuffle merges, as `merged` gives it.

    Raises:
        UnsupportedModelError: patches that the shuffle cannot merge.
    """
    config = model.config.vision_config
    patches, ratio = int(config.image_size) // int(config.patch_size), float(config.pixel_shuffle_ratio)
    factor = round(1 / ratio)
    if patches % factor or factor * ratio != 1:
        raise UnsupportedModelError(f"{patches} patches along a tile cannot be merged by pixel_shuffle_ratio={ratio}")
    index = torch.arange(patches * patches, dtype=torch.float32).view(1, -1, 1)
    return merged(pixel_shuffle(index, ratio).flatten(0, 1), patches, factor)


def _grid(ids: list[list[int]], runs: list[Run]) -> Grid:
    """The grid of one picture from what stands between the runs of its tiles.

    A token stands behind each tile, the last of a row having another one than the others; in front of the full image
    stands one more.

    Raises:
        InputsError: anything else.
    """
    row = runs[0].row
    between = [ids[row][one.end : other.start] for one, other in pairwise(runs)]
    if [len(tokens) for tokens in between] != [1] * (len(runs) - 2) + [2] * (len(runs) > 1):
        raise InputsError(
            f"the tiles of a picture in row {row} of input_ids do not have one separator between them: use the model's"
            " own processor, and do not truncate the prompt"
        )
    return grid_of_rows([tokens[0] == between[-1][0] for tokens in between])


def _canvas(tiles: Tensor, grid: Grid, size: Size | None, side: int) -> tuple[float, float] | None:
    """(width, height) of the grid of tiles in pixels of the picture, or of the full image where its size is unknown.

    The inputs do not tell how far the picture reaches. With its size the processor's rule does, if what the tiles show
    agrees; without, the padding does.

    Raises:
        InputsError: a size that is not that of the picture.
    """
    canvas = (max(grid[1], 1) * side, max(grid[0], 1) * side)
    shown, whole = _shown(tiles, grid, side)
    if size is None:
        if not all(grid):
            return None
        # Black edges of the picture look like padding, but the full image, which is not padded, has them too.
        reach = [min(one * side / other, most) for one, other, most in zip(shown, whole, canvas, strict=True)]
        return canvas[0] * side / reach[0], canvas[1] * side / reach[1]
    for resized in _resized(size, canvas, side):
        if all(one <= other for one, other in zip(shown, resized, strict=True)):
            return canvas[0] * size[0] / resized[0], canvas[1] * size[1] / resized[1]
    raise InputsError(
        f"images= holds a picture of {size[0]} x {size[1]} pixels, which does not reach as far as what the"
        f" {canvas[0] // side} x {canvas[1] // side} tiles show: give the pictures the inputs were made from"
    )


def _resized(size: Size, canvas: Size, side: int) -> list[Size]:
    """(width, height) that the processor may have scaled a picture to: without enlarging it, by default, or with."""
    # Imported here because it needs torchvision, which the processor, and so the caller, has.
    from transformers.models.llama4.image_processing_llama4 import get_max_res_without_distortion

    smaller = tuple(min(max(length, side), most) for length, most in zip(size, canvas, strict=True))
    found = []
    for limit in (smaller, canvas):
        height, width = get_max_res_without_distortion(size[::-1], limit[::-1])
        found.append((max(width, 1), max(height, 1)))
    return found


def _shown(tiles: Tensor, grid: Grid, side: int) -> tuple[Size, Size]:
    """(width, height) up to the last pixel that is not padding, of the grid of tiles and of the full image behind it.

    Waits for the device.
    """
    rows, columns = (max(count, 1) for count in grid)
    cut = tiles[: rows * columns]
    mosaic = cut.view(rows, columns, *cut.shape[1:]).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    corner = mosaic[:, -1:, -1:]
    padded = corner.flatten() == tiles.amin((0, 2, 3))  # nothing is darker than padding
    reach = []
    for picture in (mosaic, tiles[-1]):
        other = ((picture != corner) | ~padded.all()).any(0)
        for length, filled in ((picture.shape[2], other.any(0)), (picture.shape[1], other.any(1))):
            last = length - filled.flip(0).to(torch.uint8).argmax()
            reach.append(torch.where(filled.any(), last, length))  # nothing but black: all of it
    width, height, *whole = torch.stack(reach).tolist()
    return (width, height), (whole[0], whole[1])
