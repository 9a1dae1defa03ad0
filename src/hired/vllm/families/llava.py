"""LLaVA-1.5, served."""

from vllm.model_executor.models.llava import (
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)

from hired.vllm.families.squares import Squares
from hired.vllm.models import with_processor
from hired.vllm.processing import PrunedInfo, PrunedProcessor


class LlavaInfo(PrunedInfo, LlavaProcessingInfo):  # type: ignore[misc]
    """Of LLaVA-1.5."""


class LlavaProcessor(PrunedProcessor, LlavaMultiModalProcessor):  # type: ignore[misc]
    """Of LLaVA-1.5."""


@with_processor(LlavaForConditionalGeneration, LlavaInfo, LlavaProcessor)
class HiredLlava(Squares, LlavaForConditionalGeneration):  # type: ignore[misc]
    """LLaVA-1.5: one partition. Its Pixtral kind is refused."""
