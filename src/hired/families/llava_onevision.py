"""LLaVA-OneVision: the full image and a grid of sub-images, SigLIP tower without CLS, an MLP, unpadding, newlines.

The sub-images' features of large pictures are resampled to about as many tokens as `vision_aspect_ratio` names
partitions ("anyres_max_9"), so that a token may be made of cells of up to four sub-images. A picture that shares its
prompt with others is not cut at all: the model and its processor take that from `batch_num_images`.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

from hired.core.layout import STRUCTURE, Box, Layout, Mixing
from hired.errors import InputsError, UnsupportedModelError
from hired.families.base import Encoder, Family, Limits, Size, core_model
from hired.families.remembered import Remembered, own_packer
from hired.families.squares import (
    blank_tiles,
    canvas_tiles,
    held_partitions,
    picture_sizes,
    seen_share,
    square_cells,
    tower_parts,
)

UNSCALED = "anyres_max_1000000"
"""A `vision_aspect_ratio` under which the packer resamples nothing."""

_layouts = Remembered()


class LlavaOnevision(Family):
    """Facts: `transformers.models.llava_onevision`. Not `tokenwise`, because resampling mixes encoder outputs: every
    token is computed and projected, and the dropped ones are then thrown away.
    """

    name: ClassVar[str] = "LLaVA-OneVision"
    model_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)
    classes: ClassVar[str] = "LlavaOnevisionForConditionalGeneration"
    encoder: ClassVar[str] = "SigLIP, no CLS token: attention received"
    partitions: ClassVar[str] = "full image + r x c sub-images; full image only where a prompt has several"
    tokens: ClassVar[str] = "729 a partition at 384 px, at most about 10 x 729, + newlines"
    verified: ClassVar[str] = "random tiny models; real weights not tried"
    image_keys: ClassVar[tuple[str, ...]] = ("pixel_values", "image_sizes", "batch_num_images")

    def parts(self, model: Any) -> Encoder:
        """The SigLIP tower's parts."""
        return tower_parts(model)

    def blank_inputs(self, model: Any, sizes: list[Size], limits: Limits | None = None) -> dict[str, Tensor]:
        """Pictures that each stand alone in their prompt."""
        return blank_tiles(model.config, sizes)

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """Asks the model's own packer where each patch goes, by packing indices and coordinates."""
        if not re.fullmatch(r"anyres_max_\d+", str(model.config.vision_aspect_ratio)):
            raise UnsupportedModelError(
                f"vision_aspect_ratio={model.config.vision_aspect_ratio!r} is not supported: only 'anyres_max_N' is"
            )
        pixels = inputs["pixel_values"]
        square_cells(model, pixels)
        known = picture_sizes(inputs, sizes, flat=pixels.dim() == 4)
        alone = _alone(inputs.get("batch_num_images"), len(known))
        made = [self._known(model, size, by_itself) for size, by_itself in zip(known, alone, strict=True)]
        partitions = [layout.partitions for layout in made]
        for size, held, wanted in zip(known, held_partitions(pixels, partitions), partitions, strict=True):
            if held < wanted:
                raise InputsError(
                    f"pixel_values hold {held} partitions for a picture of {size[0]} x {size[1]} pixels, which the"
                    f" model cuts into {wanted}: pass on batch_num_images, and use the processor of this checkpoint"
                )
        return made

    def _known(self, model: Any, size: Size, alone: bool) -> Layout:
        """The layout of a picture's size; kept where the packer is transformers' own."""
        make = partial(self._cut if alone else self._whole, model, size)
        packer, config = own_packer(core_model(model)), model.config
        if packer is None:
            return make()
        grids, side = tuple(map(tuple, config.image_grid_pinpoints)), int(config.vision_config.image_size)
        return _layouts.get(
            (packer, alone, size, grids, side, _cells(model), seen_share(model), config.vision_aspect_ratio), make
        )

    def _whole(self, model: Any, size: Size) -> Layout:
        """One of several pictures in a prompt: padded to a square, one partition, one newline behind it."""
        cells, seen = _cells(model), seen_share(model)
        index = _pack(model, torch.arange(cells * cells).view(1, -1, 1), size, UNSCALED)[:, 0].to(torch.int64)
        long = max(size)
        left, top = ((long - length) // 2 for length in size)
        return Layout.build(
            partition=torch.where(index == STRUCTURE, index, torch.zeros_like(index)),
            cell=index,
            line=torch.zeros_like(index),
            cells=(cells, cells),
            boxes=((-float(left), -float(top), long * seen - left, long * seen - top),),
            size=size,
        )

    def _cut(self, model: Any, size: Size) -> Layout:
        """A picture that stands alone in its prompt."""
        config, (width, height) = model.config, size
        cells, seen, side = _cells(model), seen_share(model), int(config.vision_config.image_size)
        canvas_h, canvas_w = select_best_resolution((height, width), config.image_grid_pinpoints)
        grid = canvas_h // side, canvas_w // side
        partitions, tokens = 1 + grid[0] * grid[1], cells * cells
        boxes = ((0.0, 0.0, width * seen, height * seen), *canvas_tiles(size, (canvas_w, canvas_h), side, seen))
        index = _pack(model, torch.arange(partitions * tokens).view(partitions, -1, 1), size, UNSCALED)[:, 0].long()
        places = _pack(model, _coordinates(grid, cells), size, config.vision_aspect_ratio)
        mixing = None
        if len(places) != len(index):
            unpadded = _canvas(index[tokens:], grid, cells)
            index, mixing = _mixed(places, unpadded, grid, cells, boxes)
        newline = index == STRUCTURE
        line = newline.cumsum(0) - newline.to(torch.int64)
        return Layout.build(
            partition=torch.where(newline, index, index // tokens),
            cell=torch.where(newline, index, index % tokens),
            line=torch.where(torch.arange(len(index)) < tokens, torch.full_like(line, STRUCTURE), line),
            cells=(cells, cells),
            grid=grid,
            boxes=boxes,
            size=size,
            mixing=mixing,
        )


def _alone(counts: Any, images: int) -> list[bool]:
    """Whether each picture is the only one of its prompt; the model cuts only those."""
    if counts is None:
        return [True] * images  # as the model takes it
    try:
        numbers = [int(number) for number in torch.as_tensor(counts).tolist()]
    except (TypeError, ValueError, RuntimeError):
        raise InputsError("batch_num_images must hold numbers: pass on all that the processor returned") from None
    if sum(numbers) != images or min(numbers, default=1) < 0:
        raise InputsError(f"{images} images in pixel_values but {sum(numbers)} in batch_num_images")
    return [number == 1 for number in numbers for _ in range(number)]


def _cells(model: Any) -> int:
    config = model.config.vision_config
    return int(config.image_size) // int(config.patch_size)


def _pack(model: Any, values: Tensor, size: Size, ratio: str) -> Tensor:
    """What the model's packer makes of (partitions, N, channels) values in place of features, newlines `STRUCTURE`.

    In double precision: a linear function stays exact under linear resampling.
    """
    values = values.to(torch.float64)
    newline = torch.full((values.shape[-1],), float(STRUCTURE), dtype=torch.float64)
    height_width = torch.tensor([[size[1], size[0]]])
    packed, _ = core_model(model).pack_image_features([values], height_width, newline, ratio)
    found: Tensor = packed[0]
    return found


def _coordinates(grid: tuple[int, int], cells: int) -> Tensor:
    """(partitions, N, 2): row and column, counted over the whole canvas, of every patch of the sub-images.

    The full image, which is not resampled, stands in front with its own.
    """
    index = torch.arange(cells * cells)
    own = torch.stack((index // cells, index % cells), -1)
    corners = [(0, 0), *((row * cells, column * cells) for row in range(grid[0]) for column in range(grid[1]))]
    return own + torch.tensor(corners)[:, None]


def _canvas(index: Tensor, grid: tuple[int, int], cells: int) -> Box:
    """(top, left, bottom, right) of the canvas without its padding, in cells, from the indices of its patches."""
    rows, columns = _coordinates(grid, cells).flatten(0, 1)[index[index != STRUCTURE]].unbind(-1)
    return float(rows.min()), float(columns.min()), float(rows.max() + 1), float(columns.max() + 1)


def _mixed(
    places: Tensor,
    unpadded: Box,
    grid: tuple[int, int],
    cells: int,
    boxes: tuple[Box, ...],
) -> tuple[Tensor, Mixing]:
    """What resampled tokens are made of, from the place on the canvas of each token's middle.

    Args:
        places: (T, 2) rows and columns that the packer gave, the full image first, `STRUCTURE` at newlines.
        unpadded: (top, left, bottom, right) of what was resampled, in cells of the canvas.
        grid, cells, boxes: as in `Layout`.

    Returns:
        (T,) int64 index of the cell in the middle of each token as partition * N + cell, `STRUCTURE` at newlines; and
        the mixing.
    """
    tokens, newline = cells * cells, places[:, 0] == STRUCTURE
    base = torch.arange(len(places)) < tokens
    skip = (base | newline)[:, None]
    low = (places + 1e-6).floor()
    part = torch.where(skip, 0.0, (places - low).clamp(min=0.0))
    part = torch.where(part < 1e-6, 0.0, part)
    index, weight = [], []
    for down in (0, 1):
        for across in (0, 1):
            step = torch.tensor([down, across])
            each = torch.where(step == 1, part, 1 - part).prod(-1)
            index.append(torch.where(each > 0, _flat(low + step, grid, cells), 0))
            weight.append(torch.where(newline, 0.0, each))
    stacked, weights = torch.stack(index, -1), torch.stack(weight, -1)
    own = torch.arange(len(places)).clamp(max=tokens - 1)
    stacked[:, 0] = torch.where(base, own, stacked[:, 0])
    stacked = torch.where(newline[:, None] | (weights == 0), 0, stacked)
    middle = torch.where(base, own, _flat((places + 0.5).floor(), grid, cells))

    made = places[~(base | newline)]
    lines = int(newline.sum())
    extent = torch.tensor([unpadded[2] - unpadded[0], unpadded[3] - unpadded[1]], dtype=torch.float64)
    per = extent / torch.tensor([lines, len(made) // lines])
    edges = torch.cat((places + 0.5 - per / 2, places + 0.5 + per / 2), -1)
    top, left, bottom, right = edges.unbind(-1)
    shown = torch.stack(
        (
            _pixels(left, [(box[0], box[2]) for box in boxes[1 : 1 + grid[1]]], cells, far=False),
            _pixels(top, [(box[1], box[3]) for box in boxes[1 :: grid[1]]], cells, far=False),
            _pixels(right, [(box[0], box[2]) for box in boxes[1 : 1 + grid[1]]], cells, far=True),
            _pixels(bottom, [(box[1], box[3]) for box in boxes[1 :: grid[1]]], cells, far=True),
        ),
        -1,
    )
    x0, y0, x1, y1 = boxes[0]
    scale = torch.tensor([x1 - x0, y1 - y0, x1 - x0, y1 - y0], dtype=torch.float64) / cells
    own_box = torch.cat((places.flip(-1), places.flip(-1) + 1), -1) * scale + torch.tensor([x0, y0, x0, y0])
    shown = torch.where(base[:, None], own_box, shown)
    return torch.where(newline, STRUCTURE, middle), Mixing(stacked, weights.float(), shown)


def _flat(places: Tensor, grid: tuple[int, int], cells: int) -> Tensor:
    """(T,) partition * N + cell of the sub-images' cells at (T, 2) rows and columns of the canvas."""
    rows, columns = places.to(torch.int64).clamp(min=0).unbind(-1)
    rows, columns = rows.clamp(max=grid[0] * cells - 1), columns.clamp(max=grid[1] * cells - 1)
    partition = 1 + (rows // cells) * grid[1] + columns // cells
    return partition * cells * cells + (rows % cells) * cells + columns % cells


def _pixels(edges: Tensor, spans: list[tuple[float, float]], cells: int, *, far: bool) -> Tensor:
    """Pixels of the picture at the given edges in cells of the canvas, of sub-images that cover `spans` pixels.

    An edge between two sub-images, which need not touch, is the end of the first where `far`, else the start of the
    second.
    """
    # Edges are sums of fractions: on a border within rounding is on the border.
    nearest = edges.round()
    edges = torch.where((edges - nearest).abs() < 1e-6, nearest, edges)
    tile = (edges / cells).ceil().long() - 1 if far else (edges / cells).floor().long()
    tile = tile.clamp(0, len(spans) - 1)
    limits = torch.tensor(spans, dtype=torch.float64)[tile]
    return limits[:, 0] + (edges - tile * cells) / cells * (limits[:, 1] - limits[:, 0])
