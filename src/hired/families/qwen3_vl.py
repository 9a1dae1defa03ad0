"""Qwen3-VL: native resolution, no CLS, a 2 x 2 merger, M-RoPE positions, and DeepStack.

DeepStack adds features of early encoder layers to the first layers of the LLM, at the visual tokens' places: a token is
kept or dropped with all of its features. No layer has windows, so the first and the last one are read.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from hired.families.qwen2_vl import Qwen2VL


class Qwen3VL(Qwen2VL):
    """Facts: `transformers.models.qwen3_vl`."""

    name: ClassVar[str] = "Qwen3-VL"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl",)
    classes: ClassVar[str] = "Qwen3VLForConditionalGeneration"
    tokens: ClassVar[str] = "1 per 32 x 32 px, with DeepStack features"

    def features(self, output: Any) -> Tensor:
        """(tokens, 1 + DeepStack layers, hidden)."""
        every = [output.pooler_output, *output.deepstack_features]
        return torch.stack([torch.cat(list(features)) for features in every], 1)

    def container(self, features: list[Tensor]) -> Any:
        """Each of the features as a list of one tensor an image."""
        from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

        first, *others = zip(*(feature.unbind(1) for feature in features), strict=True)
        return BaseModelOutputWithDeepstackFeatures(
            pooler_output=list(first), deepstack_features=[list(layer) for layer in others]
        )
