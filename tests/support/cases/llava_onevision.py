"""LLaVA-OneVision."""

from typing import Any

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
)

from tests.support.tiny import (
    IMAGE_ID,
    PATCH,
    PINPOINTS,
    SIDE,
    WORDS,
    Case,
    seeded,
    sharpen,
    siglip,
    text,
    tokenizer,
)

# As in SigLIP-384 with patches of 14, a strip at the far edges is no whole patch and is not seen.
ONEVISION_SIDE = SIDE + 2
ONEVISION_PINPOINTS = [[h // SIDE * ONEVISION_SIDE, w // SIDE * ONEVISION_SIDE] for h, w in PINPOINTS]
MOST_PARTITIONS = "anyres_max_2"
"""Grids of three sub-images and more are resampled."""


def llava_onevision() -> Any:
    config = LlavaOnevisionConfig(
        vision_config=siglip(image_size=ONEVISION_SIDE),
        text_config=text(),
        image_grid_pinpoints=ONEVISION_PINPOINTS,
        vision_aspect_ratio=MOST_PARTITIONS,
        image_token_index=IMAGE_ID,
        video_token_index=WORDS.index("C"),
    )
    model = seeded(lambda: LlavaOnevisionForConditionalGeneration(config))
    sharpen(model.model.vision_tower)
    return model


def llava_onevision_processor(padding_side: str = "left") -> Any:
    from transformers import LlavaOnevisionVideoProcessor

    return LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessorPil(
            size={"height": ONEVISION_SIDE, "width": ONEVISION_SIDE}, image_grid_pinpoints=ONEVISION_PINPOINTS
        ),
        tokenizer(padding_side),
        LlavaOnevisionVideoProcessor(),
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=MOST_PARTITIONS,
        video_token="C",
    )


CASE = Case(
    "llava_onevision",
    llava_onevision,
    llava_onevision_processor,
    side=ONEVISION_SIDE,
    pinpoints=tuple((h, w) for h, w in ONEVISION_PINPOINTS),
    torchvision=True,
    by_prompt=True,
)
