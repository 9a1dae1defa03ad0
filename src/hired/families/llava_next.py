"""LLaVA-NeXT: the full image and a grid of sub-images, CLIP tower with CLS, an MLP, unpadding, newlines."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from transformers.image_processing_utils import select_best_resolution

from hired.core.layout import STRUCTURE, Box, Layout
from hired.errors import InputsError
from hired.families.base import Encoder, Family, Size, clip_parts, core_model, parameters_at_hand, square_cells


class LlavaNext(Family):
    """Facts: `transformers.models.llava_next`."""

    name: ClassVar[str] = "LLaVA-NeXT"
    model_types: ClassVar[tuple[str, ...]] = ("llava_next",)
    classes: ClassVar[str] = "LlavaNextForConditionalGeneration (vicuna, mistral, llama3, qwen, yi)"
    encoder: ClassVar[str] = "CLIP, CLS token"
    partitions: ClassVar[str] = "full image + r x c sub-images"
    tokens: ClassVar[str] = "576 a partition at 336 px, + newlines"
    verified: ClassVar[str] = "the shipped trained model and random tiny models; 7B weights not tried"
    image_keys: ClassVar[tuple[str, ...]] = ("pixel_values", "image_sizes")
    tokenwise: ClassVar[bool] = True

    def parts(self, model: Any) -> Encoder:
        """The CLIP tower's parts."""
        return clip_parts(model)

    def pixels(self, inputs: Mapping[str, Any], layouts: list[Layout]) -> torch.Tensor:
        """The partitions of each image without the padding that evens out a batch."""
        padded = inputs["pixel_values"]
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

    def blank_inputs(self, model: Any, sizes: list[Size]) -> dict[str, torch.Tensor]:
        """As many squares a picture as the largest grid has, the others being padding, and the pictures' sizes."""
        side = int(model.config.vision_config.image_size)
        most = 1 + max((height // side) * (width // side) for height, width in model.config.image_grid_pinpoints)
        return {
            "pixel_values": torch.empty(len(sizes), most, 3, side, side, device="meta"),
            "image_sizes": torch.tensor([(height, width) for width, height in sizes]),
        }

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """Asks the model's own packer where each patch goes, by packing patch indices in place of features."""
        pixels, image_sizes = inputs["pixel_values"], inputs.get("image_sizes")
        if image_sizes is None:
            raise InputsError("image_sizes is missing beside pixel_values: pass on all that the processor returned")
        side, cells = square_cells(model, pixels)
        try:
            known = [(int(w), int(h)) for h, w in torch.as_tensor(image_sizes).tolist()]
        except (TypeError, ValueError, RuntimeError):
            raise InputsError(
                "image_sizes must be (height, width) pairs: pass on all that the processor returned"
            ) from None
        if len(known) != pixels.shape[0]:
            raise InputsError(f"{pixels.shape[0]} images in pixel_values but {len(known)} in image_sizes")
        if any(min(size) < 1 for size in known):
            raise InputsError(f"a picture without area in image_sizes: {known}")
        if sizes is not None and sizes != known:
            raise InputsError(f"images= has sizes (width, height) {sizes}, the inputs were made from {known}")
        return [self._layout(model, size, side, cells, pixels) for size in known]

    def _layout(self, model: Any, size: Size, side: int, cells: int, pixels: torch.Tensor) -> Layout:
        width, height = size
        canvas_h, canvas_w = select_best_resolution((height, width), model.config.image_grid_pinpoints)
        rows, columns = canvas_h // side, canvas_w // side
        partitions, tokens = 1 + rows * columns, cells * cells
        if pixels.dim() != 5 or pixels.shape[1] < partitions:
            raise InputsError(
                f"pixel_values {tuple(pixels.shape)} hold too few partitions for a picture of {width} x {height}"
                f" pixels, which the model cuts into {partitions}: are model and processor of one checkpoint?"
            )
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
            boxes=((0.0, 0.0, float(width), float(height)), *_tiles(size, (canvas_w, canvas_h), side)),
            size=size,
        )


def _tiles(size: Size, canvas: Size, side: int) -> list[Box]:
    """Rectangles of the sub-images in pixels of the picture, which stands scaled in the middle of the canvas."""
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    shown = [min(math.ceil(length * scale), limit) for length, limit in zip(size, canvas, strict=True)]
    left, top = ((limit - length) // 2 for limit, length in zip(canvas, shown, strict=True))
    per_x, per_y = size[0] / shown[0], size[1] / shown[1]
    return [
        ((x - left) * per_x, (y - top) * per_y, (x + side - left) * per_x, (y + side - top) * per_y)
        for y in range(0, canvas[1], side)
        for x in range(0, canvas[0], side)
    ]
