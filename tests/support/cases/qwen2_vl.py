"""Qwen2-VL."""

from typing import Any

from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor

from tests.support.cases.qwen import IDS, MERGE, PATCH, TEXT, case, made


def qwen2_vl() -> Any:
    vision = {
        "depth": 3,
        "embed_dim": 32,
        "hidden_size": 64,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
    }
    config = Qwen2VLConfig(vision_config=vision, text_config=TEXT, tie_word_embeddings=False, **IDS)
    return made(Qwen2VLForConditionalGeneration, config)


CASE = case("qwen2_vl", qwen2_vl, Qwen2VLProcessor)
