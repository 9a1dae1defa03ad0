"""LLaVA-NeXT-Video, pictures only."""

from typing import Any

from transformers import (
    LlavaNextImageProcessorPil,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoProcessor,
)

from tests.support.tiny import IMAGE_ID, PATCH, PINPOINTS, SIDE, WORDS, Case, seeded, text, tokenizer, vision

VIDEO = "C"


def llava_next_video() -> Any:
    config = LlavaNextVideoConfig(
        vision_config=vision(),
        text_config=text(),
        image_grid_pinpoints=PINPOINTS,
        image_token_index=IMAGE_ID,
        video_token_index=WORDS.index(VIDEO),
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    return seeded(lambda: LlavaNextVideoForConditionalGeneration(config))


def llava_next_video_processor(padding_side: str = "left") -> Any:
    from transformers import LlavaNextVideoVideoProcessor

    return LlavaNextVideoProcessor(
        LlavaNextVideoVideoProcessor(),
        LlavaNextImageProcessorPil(
            size={"shortest_edge": SIDE},
            crop_size={"height": SIDE, "width": SIDE},
            image_grid_pinpoints=PINPOINTS,
        ),
        tokenizer(padding_side),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        video_token=VIDEO,
    )


CASE = Case(
    "llava_next_video",
    llava_next_video,
    llava_next_video_processor,
    pinpoints=tuple((h, w) for h, w in PINPOINTS),
    torchvision=True,
)
