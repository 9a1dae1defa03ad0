"""LLaVA-1.5 and its kin: one partition, CLIP tower with CLS, an MLP between encoder and LLM."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch

from hired.core.layout import STRUCTURE, Box, Layout
from hired.families.base import Encoder, Family, Limits, Size, core_model, match_sizes
from hired.families.remembered import Remembered
from hired.families.squares import seen_share, square_cells, tower_parts

_layouts = Remembered()


class Llava(Family):
    """Facts: `transformers.models.llava`; the processor shrinks the short side and cuts the middle out.

    Attributes:
        strategy: as in `squares.check_square`.
    """

    name: ClassVar[str] = "LLaVA"
    model_types: ClassVar[tuple[str, ...]] = ("llava",)
    classes: ClassVar[str] = "LlavaForConditionalGeneration (LLaVA-1.5, ShareGPT4V converted)"
    encoder: ClassVar[str] = "CLIP, CLS token; or SigLIP, attention received"
    partitions: ClassVar[str] = "the full image only"
    tokens: ClassVar[str] = "576 at 336 px"
    verified: ClassVar[str] = "random tiny models; real weights not tried"

    tokenwise: ClassVar[bool] = True
    strategy: ClassVar[str | None] = None

    def parts(self, model: Any) -> Encoder:
        """The CLIP or SigLIP tower's parts."""
        return tower_parts(model)

    def pixels(self, inputs: Mapping[str, Any], layouts: list[Layout]) -> torch.Tensor:
        """One partition an image."""
        pixels: torch.Tensor = inputs["pixel_values"]
        return pixels

    def project(self, model: Any, patches: torch.Tensor) -> torch.Tensor:
        """The MLP."""
        projected: torch.Tensor = core_model(model).multi_modal_projector(patches)
        return projected

    def blank_inputs(self, model: Any, sizes: list[Size], limits: Limits | None = None) -> dict[str, torch.Tensor]:
        """One square a picture."""
        side = int(model.config.vision_config.image_size)
        return {"pixel_values": torch.empty(len(sizes), 3, side, side, device="meta")}

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """One partition an image; its box is the part of the picture shown where `sizes` tell the picture."""
        side, cells = square_cells(model, inputs["pixel_values"], self.strategy)
        match_sizes(sizes, inputs["pixel_values"].shape[0])
        known: list[Size | None] = [*sizes] if sizes else [None] * inputs["pixel_values"].shape[0]
        shown = [(size, _shown(model, size, side)) for size in known]
        return [_layouts.get((cells, *facts), partial(_layout, cells, *facts)) for facts in shown]


def _layout(cells: int, size: Size | None, box: Box) -> Layout:
    return Layout.build(
        partition=torch.zeros(cells * cells, dtype=torch.int64),
        cell=torch.arange(cells * cells),
        line=torch.full((cells * cells,), STRUCTURE),
        cells=(cells, cells),
        boxes=(box,),
        size=size,
    )


def _shown(model: Any, size: Size | None, side: int) -> Box:
    """What of a picture the encoder's patches cover, as the image processors of the two towers prepare it.

    CLIP's scales the short side to the encoder's input and cuts the middle out; SigLIP's squeezes the whole picture.
    """
    seen = seen_share(model)
    if size is None:
        return 0.0, 0.0, side * seen, side * seen
    width, height = size
    if model.config.vision_config.model_type != "clip_vision_model":
        return 0.0, 0.0, width * seen, height * seen
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    return left, top, left + short * seen, top + short * seen
