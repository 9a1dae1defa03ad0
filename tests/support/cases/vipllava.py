"""ViP-LLaVA: as LLaVA, with the features of several layers side by side, unlike in order and among them the first."""

from typing import Any

from transformers import VipLlavaConfig, VipLlavaForConditionalGeneration

from tests.support.cases.llava import llava_processor
from tests.support.tiny import IMAGE_ID, PATCH, PINPOINTS, SIDE, Case, seeded, text, vision

STATES = (-2, 1, -3)


def vipllava() -> Any:
    config = VipLlavaConfig(
        vision_config=vision(),
        text_config=text(),
        image_token_index=IMAGE_ID,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    # Under either name: transformers renamed it.
    setattr(
        config, "vision_feature_layers" if "vision_feature_layers" in vars(config) else "vision_feature_layer", STATES
    )
    return seeded(lambda: VipLlavaForConditionalGeneration(config))


CASE = Case("vipllava", vipllava, llava_processor, pinpoints=tuple((h, w) for h, w in PINPOINTS), cut=False)
