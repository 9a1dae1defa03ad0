"""LLaVA-NeXT, served."""

from vllm.model_executor.models.llava_next import (
    LlavaNextForConditionalGeneration,
    LlavaNextMultiModalProcessor,
    LlavaNextProcessingInfo,
)

from hired.vllm.families.squares import Squares
from hired.vllm.models import with_processor
from hired.vllm.processing import PrunedInfo, PrunedProcessor


class LlavaNextInfo(PrunedInfo, LlavaNextProcessingInfo):  # type: ignore[misc]
    """Of LLaVA-NeXT."""


class LlavaNextProcessor(PrunedProcessor, LlavaNextMultiModalProcessor):  # type: ignore[misc]
    """Of LLaVA-NeXT."""


@with_processor(LlavaNextForConditionalGeneration, LlavaNextInfo, LlavaNextProcessor)
class HiredLlavaNext(Squares, LlavaNextForConditionalGeneration):  # type: ignore[misc]
    """LLaVA-NeXT: the full image and a grid of sub-images."""
