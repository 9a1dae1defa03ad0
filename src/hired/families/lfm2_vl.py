"""LFM2-VL: tagged tiles, the full image behind them at a shape of its own, SigLIP 2 (NaFlex), pixel unshuffle.

A small picture is one partition at its own resolution; a large one is cut into square tiles, with the full image in its
own proportions behind them. The encoder has no CLS token that the model keeps, so the attention received stands in; it
is pooled over the 2 x 2 patches that the projector joins. Padding behind a partition's patches is masked: it neither
counts as a query nor receives. The grid follows from the number of tiles and the proportions of the full image, which
tell apart all grids of as many tiles.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from hired.core.layout import STRUCTURE, Layout
from hired.core.transfer import moved_to
from hired.errors import InputsError, UnsupportedModelError
from hired.families.base import Encoder, Family, Size, core_model, match_sizes, unwrapped
from hired.families.tiles import Grid, Run, check_tiles, even_boxes, merged, placeholder_runs


@dataclass(frozen=True)
class NaFlex(Encoder):
    """The encoder's parts, and the model's `projector`, as what it joins depends on a partition's shape."""

    projector: Any = None


_LIKE = 1.5
"""A picture's proportions differ at most by this factor from those of the grid it is cut into, long strips aside."""


class Lfm2Vl(Family):
    """Facts: `transformers.models.lfm2_vl`."""

    name: ClassVar[str] = "LFM2-VL"
    model_types: ClassVar[tuple[str, ...]] = ("lfm2_vl",)
    classes: ClassVar[str] = "Lfm2VlForConditionalGeneration"
    encoder: ClassVar[str] = "SigLIP 2 NaFlex, no CLS token: attention received, pooled over 2 x 2 patches"
    partitions: ClassVar[str] = "the whole picture; of a large one full image + r x c tiles"
    tokens: ClassVar[str] = "1 per 32 x 32 px: 64 to 256 the full image, 256 a tile, a tag before each"
    verified: ClassVar[str] = "random tiny models; real weights not tried"
    image_keys: ClassVar[tuple[str, ...]] = ("pixel_values", "spatial_shapes", "pixel_attention_mask")
    full_last: ClassVar[bool] = True

    def parts(self, model: Any) -> Encoder:
        """The tower's parts; the model takes its last layer.

        Raises:
            UnsupportedModelError: an encoder other than SigLIP 2.
        """
        core, config = core_model(model), model.config
        if config.vision_config.model_type != "siglip2_vision_model":
            raise UnsupportedModelError(
                f"the vision encoder {config.vision_config.model_type!r} is not supported here: known is"
                " 'siglip2_vision_model'"
            )
        tower, projector = unwrapped(core.vision_tower), unwrapped(core.multi_modal_projector)
        layers = tower.encoder.layers
        return NaFlex(tower=tower, layers=layers, states=(len(layers),), cls=None, projector=projector)

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """Partitions from the placeholders and `spatial_shapes`, the grid from the full image's proportions."""
        factor = int(model.config.downsample_factor)
        shapes = _shapes(inputs, int(model.config.vision_config.patch_size), factor)
        ids = inputs["input_ids"]
        runs = placeholder_runs(ids, self.image_token(model))
        check_tiles(len(runs), len(shapes))
        counts = _tiles(ids.tolist(), runs, shapes)
        match_sizes(sizes, len(counts))
        unit, found, start = factor * int(model.config.vision_config.patch_size), [], 0
        for index, count in enumerate(counts):
            own = shapes[start : start + count]
            start += count
            size = sizes[index] if sizes else None
            if size is not None:
                _check_size(size, own[-1])
            found.append(_layout(_grid(own, index), own, size, unit))
        return found

    def first_rows(self, rows: list[Tensor], encoder: Any, layouts: list[Layout]) -> list[Tensor]:
        """Token scores of every full image; `encoder` is a `NaFlex`."""
        received = torch.cat(rows)
        return [_pooled(encoder.projector, one, layout.cells) for one, layout in zip(received, layouts, strict=True)]

    def last_rows(self, rows: list[Tensor], encoder: Any, layouts: list[Layout]) -> list[Tensor]:
        """Token scores of every partition; those with fewer tokens than others are filled up behind their end."""
        each, found = torch.cat(rows), []
        for layout, own in zip(layouts, torch.split(each, [layout.partitions for layout in layouts]), strict=True):
            full = _pooled(encoder.projector, own[-1], layout.cells)
            if layout.tile_cells is None:
                found.append(full[None])
                continue
            tiles = _pooled(encoder.projector, own[:-1], layout.tile_cells)
            most = max(full.shape[-1], tiles.shape[-1])
            parts = [full[None], tiles]
            found.append(torch.cat([torch.nn.functional.pad(part, (0, most - part.shape[-1])) for part in parts]))
        return found


def _pooled(projector: Any, rows: Tensor, cells: Grid) -> Tensor:
    """Scores of tokens, (..., N), from those of patches, (..., patches): the mean of those that the projector joins.

    Args:
        projector: the model's; its own unshuffle is run on patch indices.
        rows: with padding behind the patches.
        cells: tokens as (rows, columns).
    """
    factor = int(projector.factor)
    height, width = cells[0] * factor, cells[1] * factor
    index = torch.arange(height * width, dtype=torch.float32).view(1, height, width, 1)
    merge = merged(projector.pixel_unshuffle(index).flatten(0, 2), width, factor)[0]
    return rows[..., moved_to(rows.device, merge)].mean(-1)


def _layout(grid: Grid, shapes: list[Grid], size: Size | None, unit: int) -> Layout:
    """The layout of one picture.

    Args:
        grid: (rows, columns) of its tiles, (0, 0) where it was not cut.
        shapes: tokens of each partition as (rows, columns), the full image last.
        size: the picture; None for boxes in pixels of the full image as the encoder gets it.
        unit: side of a token in these pixels.
    """
    *tiles, whole = shapes
    canvas = size or (whole[1] * unit, whole[0] * unit)
    lengths = torch.tensor([rows * columns for rows, columns in shapes])
    return Layout.build(
        partition=torch.tensor([*range(1, len(shapes)), 0]).repeat_interleave(lengths),
        cell=torch.cat([torch.arange(int(length)) for length in lengths]),
        line=torch.full((int(lengths.sum()),), STRUCTURE),
        cells=whole,
        grid=grid,
        boxes=((0.0, 0.0, float(canvas[0]), float(canvas[1])), *even_boxes(grid, canvas)),
        size=size,
        tile_cells=tiles[0] if tiles else None,
    )


def _shapes(inputs: Mapping[str, Any], patch: int, factor: int) -> list[Grid]:
    """Tokens of each partition as (rows, columns), from `spatial_shapes`.

    Raises:
        InputsError: inputs that do not fit each other, or patches that cannot be merged.
    """
    pixels, shapes, mask = (inputs.get(key) for key in Lfm2Vl.image_keys)
    if not isinstance(pixels, Tensor) or pixels.dim() != 3 or pixels.shape[2] != 3 * patch * patch:
        raise InputsError(f"pixel_values must be (tiles, patches, {3 * patch * patch}): use the model's own processor")
    if not isinstance(shapes, Tensor) or shapes.shape != (len(pixels), 2):
        raise InputsError("spatial_shapes must be (tiles, 2): pass on all that the processor returned")
    patches = shapes.prod(-1)
    if isinstance(mask, Tensor) and len(mask) == len(pixels) and mask.dim() == 2 and mask.shape[1] < pixels.shape[1]:
        # A long strip has more patches than a picture should, and its mask is one of as many as it should.
        full = (patches.to(mask.device) == pixels.shape[1]).all() & mask.bool().all()
        mask = torch.ones_like(pixels[..., 0], dtype=mask.dtype) if bool(full) else mask
    if not isinstance(mask, Tensor) or mask.shape != pixels.shape[:2]:
        raise InputsError("pixel_attention_mask must be (tiles, patches): pass on all that the processor returned")
    real = torch.arange(pixels.shape[1], device=mask.device) < patches.to(mask.device)[:, None]
    if not bool((real == mask.bool()).all() & (shapes > 0).all().to(mask.device)):
        raise InputsError(
            "pixel_attention_mask does not show the patches that spatial_shapes tell of, and no others: pass on all"
            " that the processor returned"
        )
    if bool((shapes % factor).any()):
        raise InputsError(f"spatial_shapes hold sides that are no multiple of {factor}: use the model's own processor")
    return [(rows, columns) for rows, columns in (shapes // factor).tolist()]


def _tiles(ids: list[list[int]], runs: list[Run], shapes: list[Grid]) -> list[int]:
    """Partitions of each picture. What stands behind the last run of all ends a picture; between tiles stands a tag.

    Raises:
        InputsError: runs that are no tile, tags that are missing, or a picture without its end.
    """
    for run, (rows, columns) in zip(runs, shapes, strict=True):
        if run.length != rows * columns:
            raise InputsError(
                f"row {run.row} of input_ids holds a run of {run.length} image placeholders where spatial_shapes tell"
                f" of {rows} x {columns}: was the prompt truncated, or use_image_special_tokens turned off?"
            )
    last = runs[-1]
    if last.end >= len(ids[last.row]):
        raise InputsError("the last picture's end is missing in input_ids: do not truncate the prompt")
    end = ids[last.row][last.end]
    counts = [0]
    for run in runs:
        counts[-1] += 1
        if run.end < len(ids[run.row]) and ids[run.row][run.end] == end:
            counts.append(0)
    counts.pop()
    for index in [place for place, count in enumerate(counts) if count > 1]:
        own = runs[sum(counts[:index]) : sum(counts[: index + 1])]
        if any(other.row != one.row or other.start != one.end + 1 for one, other in pairwise(own)):
            raise InputsError(
                f"the tiles of picture {index} do not have one tag between them in input_ids: use the model's own"
                " processor with use_image_special_tokens, and do not truncate the prompt"
            )
    return counts


def _grid(shapes: list[Grid], index: int) -> Grid:
    """(rows, columns) of a picture's tiles, (0, 0) where it was not cut.

    The processor takes the grid whose proportions are closest to the picture's, of all grids; so the closest of those
    with as many tiles is the one it took.

    Args:
        shapes: of its partitions, the full image last.
        index: which picture.

    Raises:
        InputsError: tiles of unlike shapes, or of no grid.
    """
    *tiles, (rows, columns) = shapes
    if not tiles:
        return 0, 0
    count, wide = len(tiles), columns / rows
    grids = [(lines, count // lines) for lines in range(1, count + 1) if count % lines == 0]
    best = min(grids, key=lambda grid: abs(grid[1] / grid[0] - wide))
    ratio = best[1] / best[0] / wide
    strip = (1 in best) and (wide - 1) * (best[1] - best[0]) > 0
    if len(set(tiles)) > 1 or count < 2 or not (strip or 1 / _LIKE <= ratio <= _LIKE):
        raise InputsError(
            f"picture {index} has {count + 1} partitions, which are no grid of equal tiles with the full image behind"
            " them: is use_thumbnail on?"
        )
    return best


def _check_size(size: Size, shape: Grid) -> None:
    """Raises `InputsError` for a picture that the processor would not resize to `shape` tokens.

    It scales both sides by one factor and rounds each to whole tokens, up or down, at least one.
    """
    low, high = 0.0, float("inf")
    for length, tokens in zip(size, shape[::-1], strict=True):
        low, high = max(low, (tokens - 1) / length), min(high, (tokens + 1) / length)
    if low >= high:
        raise InputsError(
            f"images= holds a picture of {size[0]} x {size[1]} pixels, which is not resized to the {shape[1]} x"
            f" {shape[0]} tokens that the inputs hold: give the pictures the inputs were made from"
        )
