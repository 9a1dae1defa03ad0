"""LFM2-VL: tiles, a full image of another shape, SigLIP 2 with padding, a language model with convolutions."""

from typing import Any

from transformers import (
    Lfm2Config,
    Lfm2VlConfig,
    Lfm2VlForConditionalGeneration,
    Lfm2VlProcessor,
    Siglip2VisionConfig,
)

from tests.support.byhand import ByHand
from tests.support.tiny import LANGUAGE, PATCH, Case, seeded, sharpen, tag_id, tokenizer

TILE, MOST = 48, 6
TAGS = (
    "<|image_start|>",
    "<|image_end|>",
    "<|img_thumbnail|>",
    *(f"<|img_row_{r}_col_{c}|>" for r in range(1, MOST + 1) for c in range(1, MOST // r + 1)),
)


class Lfm2ByHand(ByHand):
    keys = ("pixel_values", "spatial_shapes", "pixel_attention_mask")


def lfm2_vl() -> Any:
    vision = Siglip2VisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        patch_size=PATCH,
        num_patches=36,
        vision_use_head=False,
    )
    language = Lfm2Config(**{**LANGUAGE, "num_hidden_layers": 3}, full_attn_idxs=[0, 2], block_auto_adjust_ff_dim=False)
    config = Lfm2VlConfig(
        vision_config=vision.to_dict(),
        text_config=language.to_dict(),
        image_token_id=tag_id(TAGS, "<image>"),
        projector_hidden_size=64,
    )
    model = seeded(lambda: Lfm2VlForConditionalGeneration(config))
    sharpen(model.model.vision_tower)
    return model


def lfm2_vl_processor(padding_side: str = "left") -> Any:
    from transformers import Lfm2VlImageProcessor

    images = Lfm2VlImageProcessor(
        encoder_patch_size=PATCH,
        tile_size=TILE,
        min_image_tokens=2,
        max_image_tokens=9,
        max_tiles=MOST,
        max_pixels_tolerance=1.0,
    )
    return Lfm2VlProcessor(images, tokenizer(padding_side, TAGS))


CASE = Case("lfm2_vl", lfm2_vl, lfm2_vl_processor, torchvision=True, by_prompt=True, side=TILE, by_hand=Lfm2ByHand())
