"""Idefics3 and SmolVLM: tagged tiles row by row, the full image behind them, SigLIP, pixel shuffle, one linear layer.

A partition is one tile. Their encoder has no CLS token, and no pooling head either, so the attention received stands
in; it is pooled over the patches that the shuffle merges. The grid is certain from `input_ids`: every tile has a tag
between a `<fake_token_around_image>` and its placeholders, and only a line break stands between two rows of tiles.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from hired.core.layout import Layout
from hired.errors import InputsError, UnsupportedModelError
from hired.families.base import Encoder, Family, Size, core_model, match_sizes, tensor_rows, unwrapped
from hired.families.squares import seen_share
from hired.families.tiles import (
    Grid,
    Run,
    grid_of_rows,
    merged,
    placeholder_runs,
    squeezed_layout,
    tiles_of_groups,
)


class Idefics3(Family):
    """Facts: `transformers.models.idefics3`."""

    name: ClassVar[str] = "Idefics3"
    model_types: ClassVar[tuple[str, ...]] = ("idefics3",)
    classes: ClassVar[str] = "Idefics3ForConditionalGeneration"
    encoder: ClassVar[str] = "SigLIP, no CLS token: attention received, pooled over 2 x 2 patches"
    partitions: ClassVar[str] = "full image + r x c tiles"
    tokens: ClassVar[str] = "169 a tile at 364 px, tags before each tile"
    verified: ClassVar[str] = "random tiny models; real weights not tried"
    image_keys: ClassVar[tuple[str, ...]] = ("pixel_values", "pixel_attention_mask")
    full_last: ClassVar[bool] = True

    def parts(self, model: Any) -> Encoder:
        """The tower's parts; the model takes its last layer."""
        tower = unwrapped(core_model(model).vision_model)
        layers = tower.encoder.layers
        return Encoder(tower=tower, layers=layers, states=(len(layers),), cls=None, merge=_merge(model)[0])

    def container(self, features: list[Tensor]) -> Any:
        """One tensor of single rows: lists are not taken by the oldest supported transformers."""
        return tensor_rows(features)

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """Tiles and their grid from the tags in `input_ids`."""
        cells, side = _merge(model)[1], int(model.config.vision_config.image_size)
        tiles = _real_tiles(inputs, side)
        ids = inputs["input_ids"]
        runs = placeholder_runs(ids, self.image_token(model))
        ends, ends_row = _tags(ids.tolist(), runs)
        counts = tiles_of_groups(runs, ends, cells.numel(), tiles)
        match_sizes(sizes, len(counts))
        along = _patches(model) // int(model.config.scale_factor)
        seen, found, start = seen_share(model), [], 0
        for index, count in enumerate(counts):
            grid = grid_of_rows(ends_row[start : start + count - 1])
            start += count
            size = sizes[index] if sizes else None
            if size is not None:
                _check_size(size, grid, side)
            found.append(squeezed_layout(grid, cells, (along, along), size, side, seen))
        return found


class SmolVLM(Idefics3):
    """Facts: `transformers.models.smolvlm`."""

    name: ClassVar[str] = "SmolVLM"
    model_types: ClassVar[tuple[str, ...]] = ("smolvlm",)
    classes: ClassVar[str] = "SmolVLMForConditionalGeneration (SmolVLM2)"
    encoder: ClassVar[str] = "SigLIP, no CLS token: attention received, pooled over 3 x 3 or 4 x 4 patches"
    tokens: ClassVar[str] = "64 a tile at 512 px or 81 at 384 px, tags before each tile"


def _patches(model: Any) -> int:
    """Patches along the side of a tile."""
    config = model.config.vision_config
    return int(config.image_size) // int(config.patch_size)


def _merge(model: Any) -> tuple[Tensor, Tensor]:
    """What the connector's pixel shuffle merges, as `merged` gives it.

    Raises:
        UnsupportedModelError: patches that the shuffle cannot merge.
    """
    patches, factor = _patches(model), int(model.config.scale_factor)
    if patches % factor:
        raise UnsupportedModelError(f"{patches} patches along a tile cannot be merged by scale_factor={factor}")
    index = torch.arange(patches * patches, dtype=torch.float32).view(1, -1, 1)
    shuffled = unwrapped(core_model(model).connector).pixel_shuffle(index, factor)
    return merged(shuffled.flatten(0, 1), patches, factor)


def _real_tiles(inputs: Mapping[str, Any], side: int) -> int:
    """How many tiles the encoder will get: the model leaves out those that are all zero, which even out a batch.

    Raises:
        InputsError: pixels of another shape, or tiles that show less than their whole square.
    """
    pixels, mask = inputs["pixel_values"], inputs.get("pixel_attention_mask")
    if not isinstance(pixels, Tensor) or pixels.dim() != 5 or pixels.shape[2:] != (3, side, side):
        raise InputsError(f"pixel_values must be (batch, tiles, 3, {side}, {side}): use the model's own processor")
    real = (pixels != 0).flatten(2).any(-1)
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.shape != pixels.shape[:2] + pixels.shape[3:]:
            raise InputsError("pixel_attention_mask must be of the shape of pixel_values, without its channels")
        # Such as the padded frames of a video.
        if not bool(mask.bool().flatten(2).all(-1)[real].all()):
            raise InputsError(
                "pixel_attention_mask hides a part of a tile, which is not supported: resize pictures to the encoder's"
                f" {side} x {side} pixels instead of padding them, as the model's own processor does"
            )
    return int(real.sum())


def _tags(ids: list[list[int]], runs: list[Run]) -> tuple[list[bool], list[bool]]:
    """Which runs of placeholders are the last of their picture, and which are the last of their row of tiles.

    The full image stands last, so its tag is that of the last run of all. Tags may be several tokens.

    Raises:
        InputsError: `input_ids` without tags, or without a picture's end.
    """
    last = runs[-1]
    if last.end >= len(ids[last.row]):
        raise InputsError("the last picture's end is missing in input_ids: do not truncate the prompt")
    around = ids[last.row][last.end]  # closes the picture, and opens each of its tiles
    token = ids[last.row][last.start]

    def tag(run: Run) -> tuple[int, ...]:
        row, start = ids[run.row], run.start
        while start > 0 and row[start - 1] not in (around, token):
            start -= 1
        if start == 0 or row[start - 1] != around or start == run.start:
            raise InputsError(
                "a tile's tag is missing in input_ids: use the model's own processor, and do not truncate the prompt"
            )
        return tuple(row[start : run.start])

    whole = tag(last)
    behind = [ids[run.row][run.end] if run.end < len(ids[run.row]) else None for run in runs]
    return [tag(run) == whole for run in runs], [token != around for token in behind]


def _check_size(size: Size, grid: Grid, side: int) -> None:
    """Raises `InputsError` for a picture that the processor would not cut into `grid`.

    It scales the picture's longer side to whole tiles and the shorter one along, rounded up to whole tiles.
    """
    long, short = max(size), min(size)
    across, along = grid if size[0] < size[1] else grid[::-1]
    # The shorter side is rounded to whole pixels three times on the way, twice up or down and once down.
    low, high = (math.ceil(across * short / long + pixels / side) for pixels in (-3, 2))
    if grid != (0, 0) and not low <= along <= high:
        raise InputsError(
            f"images= holds a picture of {size[0]} x {size[1]} pixels, which is not cut into the {grid[0]} x {grid[1]}"
            " tiles that the inputs hold: give the pictures the inputs were made from"
        )
