"""Gemma 3: SigLIP on one square, no CLS, patches averaged into tokens, crops of long pictures if asked for.

The attention received stands in for a CLS row; a token has the mean of the patches that the model averages.

Partition 0 is the whole picture, squeezed to a square; the crops that the processor's pan-and-scan (off by default)
adds to it are the sub-images, beside or below each other. The inputs do not tell which entries of `pixel_values` are
crops of which picture: the text between them may be the user's as well. Without `images=` each entry therefore counts
as a picture of its own, with a budget of its own. With `images=` they are grouped: in the one way in which the
processor can have cut pictures of these sizes in these prompts, whatever its settings, or, if there are several, in the
one whose crops look like their picture.
"""

from collections.abc import Mapping
from itertools import accumulate, pairwise, product
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from hired.core.layout import STRUCTURE, Box, Layout
from hired.errors import InputsError
from hired.families.base import Encoder, Family, Limits, Size, core_model, tensor_rows, unwrapped
from hired.families.squares import check_square, tower_parts
from hired.families.tiles import CLEAR, Run, merged, placeholder_runs, tiles_of_groups, unlikeness

_STRATEGY = "full"
"""What Gemma 3 does, as `squares.check_square` calls it."""


class Gemma3(Family):
    """Facts: `transformers.models.gemma3`. Image tokens see each other in the LLM, as `token_type_ids` tell it."""

    name: ClassVar[str] = "Gemma 3"
    model_types: ClassVar[tuple[str, ...]] = ("gemma3",)
    classes: ClassVar[str] = "Gemma3ForConditionalGeneration"
    encoder: ClassVar[str] = "SigLIP, no CLS token: attention received, pooled over 4 x 4 patches"
    partitions: ClassVar[str] = "full image; with pan-and-scan and images=, + 1 x c or r x 1 crops"
    tokens: ClassVar[str] = "256 a partition at 896 px"
    verified: ClassVar[str] = "random tiny models; real weights not tried"

    def parts(self, model: Any) -> Encoder:
        """The SigLIP tower's parts; the model takes its last layer."""
        return tower_parts(model, merge=_merge(model)[0], used=-1, strategy=_STRATEGY)

    def container(self, features: list[Tensor]) -> Any:
        """One tensor of single rows."""
        return tensor_rows(features)

    def blank_inputs(self, model: Any, sizes: list[Size], limits: Limits | None = None) -> dict[str, Tensor]:
        """One square a picture, as without pan-and-scan, and one prompt for each."""
        side = int(model.config.vision_config.image_size)
        return {
            "pixel_values": torch.empty(len(sizes), 3, side, side, device="meta"),
            "input_ids": torch.full((len(sizes), _merge(model)[1].numel()), self.image_token(model)),
        }

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """One run of placeholders for every entry of `pixel_values`."""
        check_square(model, _STRATEGY)
        pixels, side = inputs["pixel_values"], int(model.config.vision_config.image_size)
        if not isinstance(pixels, Tensor) or pixels.shape[1:] != (3, side, side):
            raise InputsError(f"pixel_values must be (images, 3, {side}, {side}): use the model's own processor")
        cells = _merge(model)[1]
        runs = placeholder_runs(inputs["input_ids"], self.image_token(model))
        tiles_of_groups(runs, [True] * len(runs), cells.numel(), len(pixels))
        shape, seen = _shape(model)
        if sizes is None:
            return [_layout(cells, shape, seen, (side, side), [], None) for _ in runs]
        return [
            _layout(cells, shape, seen, size, crops, size)
            for size, crops in zip(sizes, _crops_of(sizes, runs, pixels), strict=True)
        ]


def _layout(
    cells: Tensor, shape: tuple[int, int], seen: float, whole: Size, crops: list[Box], size: Size | None
) -> Layout:
    """The layout of a picture and its crops.

    Args:
        cells: (N,) int64, the cell of every token of a partition.
        shape: cells of a partition as (rows, columns).
        seen: share of a partition's side that tokens show, from its top left.
        whole: (width, height) of the picture, or of the encoder's input where `size` is None.
        crops: the crops, in pixels of the picture.
        size: the picture, None if unknown.
    """
    partitions = torch.arange(1 + len(crops)).repeat_interleave(cells.numel())
    return Layout.build(
        partition=partitions,
        cell=cells.repeat(1 + len(crops)),
        line=torch.full_like(partitions, STRUCTURE),
        cells=shape,
        grid=(len({box[1] for box in crops}), len({box[0] for box in crops})),
        boxes=tuple(
            (x0, y0, x0 + (x1 - x0) * seen, y0 + (y1 - y0) * seen)
            for x0, y0, x1, y1 in ((0.0, 0.0, float(whole[0]), float(whole[1])), *crops)
        ),
        size=size,
    )


def _patches(model: Any) -> int:
    """Patches along the side of a partition."""
    return int(unwrapped(core_model(model).multi_modal_projector).patches_per_image)


def _merge(model: Any) -> tuple[Tensor, Tensor]:
    """What the projector's pooling averages, as `merged` gives it: its own code run on one-hot rows and columns."""
    projector, patches = unwrapped(core_model(model).multi_modal_projector), _patches(model)
    which = torch.eye(patches)
    rows = which[:, None].expand(-1, patches, -1)  # (row, column, one-hot row)
    hot = torch.cat((rows, rows.transpose(0, 1)), -1).flatten(0, 1)[None]
    bare = SimpleNamespace(
        patches_per_image=patches,
        avg_pool=projector.avg_pool,
        mm_soft_emb_norm=lambda pooled: pooled,
        mm_input_projection_weight=torch.eye(2 * patches),
    )
    pooled = type(projector).forward(bare, hot)[0] > 0  # (tokens, rows and columns each is made of)
    inside = pooled[:, :patches, None] & pooled[:, None, patches:]
    return merged(inside.flatten(1).nonzero()[:, 1].view(len(pooled), -1), patches, int(projector.kernel_size))


def _shape(model: Any) -> tuple[tuple[int, int], float]:
    """(cells of a partition as (rows, columns), share of its side that they cover)."""
    config, kernel = model.config.vision_config, int(unwrapped(core_model(model).multi_modal_projector).kernel_size)
    along = _patches(model) // kernel
    return (along, along), along * kernel * int(config.patch_size) / int(config.image_size)


def _crops_of(sizes: list[Size], runs: list[Run], pixels: Tensor) -> list[list[Box]]:
    """The crops of each picture, in its pixels.

    Args:
        sizes: the pictures.
        runs: the placeholders of each entry of `pixel_values`.
        pixels: `pixel_values`.

    Raises:
        InputsError: pictures that are not cut into as many, or in several ways, and their crops do not show which.
    """
    crops = len(runs) - len(sizes)
    if crops == 0:
        return [[] for _ in sizes]
    # A picture's entries stand in one prompt.
    ends = {place for place, (run, other) in enumerate(pairwise(runs), 1) if run.row != other.row}
    fitting = [
        counts
        for counts in (_ways(sizes, crops) if crops > 0 else ())
        if sum(counts) == crops and ends <= set(accumulate(1 + count for count in counts))
    ]
    if not fitting:
        raise InputsError(
            f"images= has {len(sizes)} pictures, which are not cut into the {len(runs)} entries of pixel_values: give"
            " the pictures the inputs were made from"
        )
    counts = fitting[0] if len(fitting) == 1 else _by_look(sizes, fitting, pixels)
    return [_cut(size, 1, count, 0.0) if count else [] for size, count in zip(sizes, counts, strict=True)]


def _by_look(sizes: list[Size], ways: list[tuple[int, ...]], pixels: Tensor) -> tuple[int, ...]:
    """The one of several ways to cut the pictures in which all crops look like their picture. Waits for the device."""
    errors = []
    for counts in ways:
        start, error = 0, pixels.new_zeros((), dtype=torch.float32)
        for (width, height), count in zip(sizes, counts, strict=True):
            if count:
                tiles = pixels[start + 1 : start + 1 + count]
                error += count * unlikeness(pixels[start], tiles, (1, count) if width >= height else (count, 1))
            start += 1 + count
        errors.append(error)
    found = torch.stack(errors).tolist()
    best, second = sorted(found)[:2]
    if not best < CLEAR * second:
        raise InputsError(
            f"the inputs do not tell which of the {len(sizes)} pictures of images= were cut into the {len(pixels)}"
            " entries of pixel_values: leave images= out, or reduce prompts of one picture each"
        )
    return ways[found.index(best)]


def _ways(sizes: list[Size], crops: int) -> set[tuple[int, ...]]:
    """The crops of each picture under all settings of pan-and-scan: all ways that make `crops` of them, and others.

    The three settings are limits, so that it is enough to try the pictures' own lengths and proportions for them.
    """
    unique = sorted(set(sizes))
    most = {size: min(max(2, int(max(size) / min(size) + 0.5)), crops) for size in unique}
    least = {
        limit
        for size in unique
        for count in range(1, most[size] + 1)
        for limit in (max(size) // count, min(-(-max(size) // count), min(size)))
        if limit
    }
    ratios = {max(size) / min(size) for size in unique}
    active = {(size, ratio): bool(_cut(size, 1, 2, ratio)) for size in unique for ratio in ratios}
    found = set()
    for limit, count in product(least, range(1, max(most.values()) + 1)):
        cut = {size: len(_cut(size, limit, count, 0.0)) for size in unique}
        found |= {tuple(cut[size] * active[size, ratio] for size in sizes) for ratio in ratios}
    return found


def _cut(size: Size, least: int, most: int, ratio: float) -> list[Box]:
    """The crops of a picture, as the image processor itself cuts it.

    Args:
        size: the picture.
        least, most, ratio: `pan_and_scan_min_crop_size`, `_max_num_crops` and `_min_ratio_to_activate`.
    """
    blank = np.empty((0, size[1], size[0]))  # without channels: only its shape counts
    shapes = [crop.shape[1:] for crop in Gemma3ImageProcessorPil.pan_and_scan(None, blank, least, most, ratio)]
    wide = size[0] >= size[1]
    boxes, start = [], 0
    for height, width in shapes:
        x, y = (start, 0) if wide else (0, start)
        boxes.append((float(x), float(y), float(x + width), float(y + height)))
        start += width if wide else height
    return boxes
