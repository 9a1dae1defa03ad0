"""Qwen2-VL, served."""

from vllm.model_executor.models.qwen2_vl import (
    Qwen2VLForConditionalGeneration,
    Qwen2VLMultiModalProcessor,
    Qwen2VLProcessingInfo,
)

from hired.vllm.families.qwen import Qwen, QwenInfo
from hired.vllm.models import with_processor
from hired.vllm.processing import PrunedProcessor


class Qwen2VLInfo(QwenInfo, Qwen2VLProcessingInfo):  # type: ignore[misc]
    """Of Qwen2-VL."""


class Qwen2VLProcessor(PrunedProcessor, Qwen2VLMultiModalProcessor):  # type: ignore[misc]
    """Of Qwen2-VL."""


@with_processor(Qwen2VLForConditionalGeneration, Qwen2VLInfo, Qwen2VLProcessor)
class HiredQwen2VL(Qwen, Qwen2VLForConditionalGeneration):  # type: ignore[misc]
    """Qwen2-VL, whose encoder attends to the whole picture in every layer."""
