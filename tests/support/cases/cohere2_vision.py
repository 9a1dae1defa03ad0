"""Command A Vision: SigLIP tiles with line breaks, pixel shuffle, a Cohere2 language model."""

from typing import Any

from transformers import Cohere2Config, Cohere2VisionConfig, Cohere2VisionForConditionalGeneration

from tests.support.tiny import LANGUAGE, SIDE, Case, seeded, sharpen, siglip, tag_id, tokenizer

TAGS = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>")


def cohere2_vision() -> Any:
    config = Cohere2VisionConfig(
        vision_config=siglip(num_hidden_layers=3).to_dict(),
        text_config=Cohere2Config(**LANGUAGE, sliding_window=4096).to_dict(),
        image_token_id=tag_id(TAGS, "<|IMG_PATCH|>"),
        alignment_intermediate_size=64,
        tie_word_embeddings=False,
    )
    model = seeded(lambda: Cohere2VisionForConditionalGeneration(config))
    sharpen(model.model.vision_tower)
    return model


def cohere2_vision_processor(padding_side: str = "left") -> Any:
    from transformers import Cohere2VisionImageProcessor, Cohere2VisionProcessor

    names = ("boi_token", "eoi_token", "image_token", "img_line_break_token")
    return Cohere2VisionProcessor(
        Cohere2VisionImageProcessor(
            size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=6, patch_size=2
        ),
        tokenizer(padding_side, TAGS, extra_special_tokens=dict(zip(names, TAGS, strict=True))),
    )


CASE = Case("cohere2_vision", cohere2_vision, cohere2_vision_processor, torchvision=True, mark="<|IMG_PATCH|>")
