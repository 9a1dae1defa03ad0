"""LLaVA-NeXT: the full image and a grid of sub-images, CLIP tower with CLS, an MLP, unpadding, newlines."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from transformers.image_processing_utils import select_best_resolution

from hired.core.layout import STRUCTURE, Layout
from hired.errors import InputsError
from hired.families.base import Encoder, Family, Limits, Size, core_model, parameters_at_hand
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

_layouts = Remembered()


class LlavaNext(Family):
    """Facts: `transformers.models.llava_next`."""

    name: ClassVar[str] = "LLaVA-NeXT"
    model_types: ClassVar[tuple[str, ...]] = ("llava_next",)
    classes: ClassVar[str] = "LlavaNextForConditionalGeneration (vicuna, mistral, llama3, qwen, yi)"
    encoder: ClassVar[str] = "CLIP, CLS token; or SigLIP, attention received"
    partitions: ClassVar[str] = "full image + r x c sub-images"
    tokens: ClassVar[str] = "576 a partition at 336 px, + newlines"
    verified: ClassVar[str] = "the shipped trained model and random tiny models; 7B weights not tried"
    image_keys: ClassVar[tuple[str, ...]] = ("pixel_values", "image_sizes")
    tokenwise: ClassVar[bool] = True

    def parts(self, model: Any) -> Encoder:
        """The CLIP or SigLIP tower's parts."""
        return tower_parts(model)

    def pixels(self, inputs: Mapping[str, Any], layouts: list[Layout]) -> torch.Tensor:
        """The partitions of each image without the padding that evens out a batch."""
        padded: torch.Tensor = inputs["pixel_values"]
        if padded.dim() == 4:
            return padded
        return torch.cat([image[: layout.partitions] for image, layout in zip(padded, layouts, strict=True)])

    def project(self, model: Any, patches: torch.Tensor) -> torch.Tensor:
        """The MLP."""
        projected: torch.Tensor = core_model(model).multi_modal_projector(patches)
        return projected

    def newline(self, model: Any) -> torch.Tensor:
        """The learned `image_newline`."""
        with parameters_at_hand(core_model(model)):
            learned: torch.Tensor = core_model(model).image_newline
            return learned.clone()

    def blank_inputs(self, model: Any, sizes: list[Size], limits: Limits | None = None) -> dict[str, torch.Tensor]:
        """As many squares a picture as the largest grid has, the others being padding, and the pictures' sizes."""
        return blank_tiles(model.config, sizes)

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """Asks the model's own packer where each patch goes, by packing patch indices in place of features."""
        pixels = inputs["pixel_values"]
        side, cells = square_cells(model, pixels)
        known = picture_sizes(inputs, sizes, flat=pixels.dim() == 4)
        made = {size: self._known(model, size, side, cells) for size in dict.fromkeys(known)}
        partitions = [made[size].partitions for size in known]
        for size, held, wanted in zip(known, held_partitions(pixels, partitions), partitions, strict=True):
            if held < wanted:
                raise InputsError(
                    f"pixel_values {tuple(pixels.shape)} hold too few partitions for a picture of {size[0]} x {size[1]}"
                    f" pixels, which the model cuts into {wanted}: are model and processor of one checkpoint?"
                )
        return [made[size] for size in known]

    def _known(self, model: Any, size: Size, side: int, cells: int) -> Layout:
        """The layout of a picture's size; kept where the packer is transformers' own."""
        packer = own_packer(model)
        if packer is None:
            return self._layout(model, size, side, cells)
        grids = tuple(map(tuple, model.config.image_grid_pinpoints))
        facts = packer, grids, size, side, cells, seen_share(model)
        return _layouts.get(facts, lambda: self._layout(model, size, side, cells))

    def _layout(self, model: Any, size: Size, side: int, cells: int) -> Layout:
        width, height = size
        canvas_h, canvas_w = select_best_resolution((height, width), model.config.image_grid_pinpoints)
        rows, columns, seen = canvas_h // side, canvas_w // side, seen_share(model)
        partitions, tokens = 1 + rows * columns, cells * cells
        indices = torch.arange(partitions * tokens, dtype=torch.float32).view(partitions, tokens, 1)
        packed, _ = model.pack_image_features(
            [indices], torch.tensor([[height, width]]), "default", image_newline=torch.full((1,), float(STRUCTURE))
        )
        index = packed[0][:, 0].to(torch.int64)
        newline = index == STRUCTURE
        partition = torch.where(newline, index, index // tokens)
        line = newline.cumsum(0) - newline.to(torch.int64)
        return Layout.build(
            partition=partition,
            cell=torch.where(newline, index, index % tokens),
            line=torch.where(partition == 0, torch.full_like(line, STRUCTURE), line),
            cells=(cells, cells),
            grid=(rows, columns),
            boxes=((0.0, 0.0, width * seen, height * seen), *canvas_tiles(size, (canvas_w, canvas_h), side, seen)),
            size=size,
        )
