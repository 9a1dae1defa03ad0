"""InternVL, served: checkpoints in transformers' form, which vLLM loads as it loads Intern-S1."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from vllm.model_executor.models.interns1 import (
    InternS1ForConditionalGeneration,
    InternS1MultiModalProcessor,
    InternS1ProcessingInfo,
)
from vllm.multimodal.processing import PromptUpdateDetails

from hired.core.layout import Layout
from hired.vllm.models import Pruned, with_processor
from hired.vllm.processing import PrunedInfo, PrunedProcessor


class InternVLInfo(PrunedInfo, InternS1ProcessingInfo):  # type: ignore[misc]
    """Of InternVL."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Pictures only. Videos are named, as vLLM's own processor looks them up."""
        return {"image": None, "video": 0}

    def shown(self, data: Mapping[str, Any], layouts: Sequence[Layout]) -> bool:
        """By the numbers of tiles."""
        found: bool = data["image_num_patches"].tolist() == [layout.partitions for layout in layouts]
        return found


class InternVLProcessor(PrunedProcessor, InternS1MultiModalProcessor):  # type: ignore[misc]
    """Of InternVL."""

    def placeholders(self, count: int) -> Any:
        """Between the tags that begin and end a picture."""
        processor, token = self.info.get_hf_processor(), self.info.geometry.image_token
        vocabulary = self.info.get_tokenizer().get_vocab()
        start, end = (vocabulary[tag] for tag in (processor.start_image_token, processor.end_image_token))
        return PromptUpdateDetails.select_token_id([start, *[token] * count, end], token)


@with_processor(InternS1ForConditionalGeneration, InternVLInfo, InternVLProcessor)
class HiredInternVL(Pruned, InternS1ForConditionalGeneration):  # type: ignore[misc]
    """InternVL: tiles and a thumbnail behind them."""

    attends: ClassVar[str] = "attention"

    def encoder_layers(self) -> Sequence[nn.Module]:
        """The tower's."""
        layers: Sequence[nn.Module] = self.vision_tower.encoder.layer
        return layers

    def by_picture(self, pixels: Any, layouts: Sequence[Layout]) -> list[Tensor]:
        """Each picture's own tiles."""
        return list(torch.split(pixels, [layout.partitions for layout in layouts]))

    def encode(self, pixels: Tensor, layouts: Sequence[Layout]) -> Tensor:
        """(tiles, tokens, hidden): what the LLM sees of every tile, behind pixel shuffle and projector."""
        found: Tensor = self.extract_feature(pixels)
        return found

    def features(self, states: Tensor, layouts: Sequence[Layout]) -> list[Tensor]:
        """One tile behind the other."""
        return [part.flatten(0, 1) for part in torch.split(states, [layout.partitions for layout in layouts])]
