"""LLaVA-1.5."""

from typing import Any

from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from tests.support.tiny import IMAGE_ID, PATCH, PINPOINTS, SIDE, Case, seeded, text, tokenizer, vision


def llava() -> Any:
    config = LlavaConfig(
        vision_config=vision(),
        text_config=text(),
        image_token_index=IMAGE_ID,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    return seeded(lambda: LlavaForConditionalGeneration(config))


def llava_processor(padding_side: str = "left") -> Any:
    return LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        tokenizer(padding_side),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


CASE = Case("llava", llava, llava_processor, pinpoints=tuple((h, w) for h, w in PINPOINTS))
