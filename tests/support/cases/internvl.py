"""InternVL: tiles and a thumbnail, CLS, pixel shuffle."""

from typing import Any

from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVisionConfig,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from tests.support.tiny import PATCH, SIDE, VOCABULARY, Case, seeded, sharpen, tag_id, text, tokenizer

TAGS = ("<img>", "</img>", "<IMG_CONTEXT>", "<video>")


def internvl() -> Any:
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=[SIDE, SIDE],
            patch_size=[PATCH, PATCH],
            initializer_range=0.2,
        ),
        text_config=text(vocab_size=VOCABULARY).to_dict(),
        image_token_id=tag_id(TAGS, "<IMG_CONTEXT>"),
        image_seq_length=(SIDE // PATCH // 2) ** 2,
        tie_word_embeddings=False,
    )
    model = seeded(lambda: InternVLForConditionalGeneration(config))
    sharpen(model.model.vision_tower, by=2.0)
    return model


def internvl_processor(padding_side: str = "left") -> Any:
    from transformers import InternVLVideoProcessor

    names = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    return InternVLProcessor(
        GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=6),
        tokenizer(padding_side, TAGS, extra_special_tokens=dict(zip(names, TAGS, strict=True))),
        InternVLVideoProcessor(),
        image_seq_length=(SIDE // PATCH // 2) ** 2,
    )


CASE = Case(
    "internvl",
    internvl,
    internvl_processor,
    torchvision=True,
    mark="<IMG_CONTEXT>",
    damped=("projection_layer.weight", "projection_layer.bias"),
)
