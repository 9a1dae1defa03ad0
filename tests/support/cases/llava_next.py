"""LLaVA-NeXT."""

from typing import Any

from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
)

from tests.support.tiny import IMAGE_ID, PATCH, PINPOINTS, SIDE, Case, seeded, text, tokenizer, vision


def llava_next() -> Any:
    config = LlavaNextConfig(
        vision_config=vision(),
        text_config=text(),
        image_grid_pinpoints=PINPOINTS,
        image_token_index=IMAGE_ID,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    return seeded(lambda: LlavaNextForConditionalGeneration(config))


def llava_next_processor(padding_side: str = "left") -> Any:
    return LlavaNextProcessor(
        LlavaNextImageProcessorPil(
            size={"shortest_edge": SIDE},
            crop_size={"height": SIDE, "width": SIDE},
            image_grid_pinpoints=PINPOINTS,
        ),
        tokenizer(padding_side),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


CASE = Case("llava_next", llava_next, llava_next_processor, pinpoints=tuple((h, w) for h, w in PINPOINTS))
