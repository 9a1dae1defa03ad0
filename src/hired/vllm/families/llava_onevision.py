"""LLaVA-OneVision, served: SigLIP without CLS, whose packer mixes patches of large pictures."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.models.llava_onevision import (
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionMultiModalProcessor,
    LlavaOnevisionProcessingInfo,
)

from hired.core.layout import Layout
from hired.errors import UnsupportedModelError
from hired.vllm.families.squares import Squares
from hired.vllm.models import with_processor
from hired.vllm.processing import PrunedInfo, PrunedProcessor

_PACKED = "anyres_max_9"
"""The `vision_aspect_ratio` that vLLM packs by, whatever the configuration says."""


class LlavaOnevisionInfo(PrunedInfo, LlavaOnevisionProcessingInfo):  # type: ignore[misc]
    """Of LLaVA-OneVision. Every picture is cut, also where a prompt has several, as vLLM does it."""

    def __init__(self, ctx: Any) -> None:
        """As `PrunedInfo`; also refuses a model that vLLM itself does not pack as it was trained."""
        ratio = ctx.get_hf_config().vision_aspect_ratio
        if ratio != _PACKED:
            raise UnsupportedModelError(
                f"vision_aspect_ratio={ratio!r} cannot be served: vLLM packs by {_PACKED!r} only"
            )
        super().__init__(ctx)


class LlavaOnevisionProcessor(PrunedProcessor, LlavaOnevisionMultiModalProcessor):  # type: ignore[misc]
    """Of LLaVA-OneVision."""


@with_processor(LlavaOnevisionForConditionalGeneration, LlavaOnevisionInfo, LlavaOnevisionProcessor)
class HiredLlavaOnevision(Squares, LlavaOnevisionForConditionalGeneration):  # type: ignore[misc]
    """LLaVA-OneVision: the full image and a grid of sub-images, resampled where there are many. No videos."""

    def features(self, states: Tensor, layouts: Sequence[Layout]) -> list[Tensor]:
        """Every patch projected, and packed with vLLM's own packer."""
        each = torch.split(self.project(states), [layout.partitions for layout in layouts])
        return [self._packed(layout.size, patches) for layout, patches in zip(layouts, each, strict=True)]

    def _packed(self, size: Any, patches: Tensor) -> Tensor:
        """(T, hidden) of a picture of (width, height) pixels, from its (P, N, hidden) projected partitions."""
        packed: Tensor = self._merge_image_patch_embeddings(
            torch.tensor([size[1], size[0]]), patches, image_newline=self.image_newline, strategy="spatial_unpad"
        )
        return packed
