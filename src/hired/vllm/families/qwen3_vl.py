"""Qwen3-VL, served."""

from torch import Tensor
from vllm.model_executor.models.qwen3_vl import (
    Qwen3VLForConditionalGeneration,
    Qwen3VLMultiModalProcessor,
    Qwen3VLProcessingInfo,
)

from hired.vllm.families.qwen import Qwen, QwenInfo
from hired.vllm.models import with_processor
from hired.vllm.processing import PrunedProcessor


class Qwen3VLInfo(QwenInfo, Qwen3VLProcessingInfo):  # type: ignore[misc]
    """Of Qwen3-VL."""


class Qwen3VLProcessor(PrunedProcessor, Qwen3VLMultiModalProcessor):  # type: ignore[misc]
    """Of Qwen3-VL."""


@with_processor(Qwen3VLForConditionalGeneration, Qwen3VLInfo, Qwen3VLProcessor)
class HiredQwen3VL(Qwen, Qwen3VLForConditionalGeneration):  # type: ignore[misc]
    """Qwen3-VL, whose tokens bring features for the LLM's first layers behind their own."""

    def embedded(self, features: Tensor) -> Tensor:
        """Without those of the early layers."""
        return features[:, : self.visual_dim]
