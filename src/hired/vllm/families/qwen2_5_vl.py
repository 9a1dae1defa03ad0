"""Qwen2.5-VL, served."""

from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)

from hired.vllm.families.qwen import Qwen, QwenInfo
from hired.vllm.models import with_processor
from hired.vllm.processing import PrunedProcessor


class Qwen25VLInfo(QwenInfo, Qwen2_5_VLProcessingInfo):  # type: ignore[misc]
    """Of Qwen2.5-VL."""


class Qwen25VLProcessor(PrunedProcessor, Qwen2_5_VLMultiModalProcessor):  # type: ignore[misc]
    """Of Qwen2.5-VL."""


@with_processor(Qwen2_5_VLForConditionalGeneration, Qwen25VLInfo, Qwen25VLProcessor)
class HiredQwen25VL(Qwen, Qwen2_5_VLForConditionalGeneration):  # type: ignore[misc]
    """Qwen2.5-VL, whose encoder attends in windows but for a few layers, which are read."""
