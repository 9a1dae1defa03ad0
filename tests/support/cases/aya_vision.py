"""Aya Vision: SigLIP tiles with tags, pixel shuffle, a Cohere2 language model."""

from typing import Any

from transformers import AyaVisionConfig, AyaVisionForConditionalGeneration, AyaVisionProcessor, Cohere2Config
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from tests.support.tiny import LANGUAGE, PATCH, SIDE, Case, seeded, sharpen, siglip, tag_id, tokenizer

TILES = tuple(f"TILE_{index}" for index in range(1, 7))
TAGS = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE_GLOBAL", *TILES)


def aya_vision() -> Any:
    config = AyaVisionConfig(
        vision_config=siglip(num_hidden_layers=3).to_dict(),
        text_config=Cohere2Config(**LANGUAGE, sliding_window=4096).to_dict(),
        image_token_index=tag_id(TAGS, "<|IMG_PATCH|>"),
        tie_word_embeddings=False,
    )
    model = seeded(lambda: AyaVisionForConditionalGeneration(config))
    sharpen(model.model.vision_tower)
    return model


def aya_vision_processor(padding_side: str = "left") -> Any:
    return AyaVisionProcessor(
        GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=6),
        tokenizer(padding_side, TAGS),
        patch_size=PATCH,
        img_size=SIDE,
        downsample_factor=2,
    )


CASE = Case("aya_vision", aya_vision, aya_vision_processor)
