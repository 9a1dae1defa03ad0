"""Qwen2.5-VL: windows of 2 x 2 tokens in all layers but two."""

from typing import Any

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from tests.support.cases.qwen import IDS, MERGE, PATCH, TEXT, case, made


def qwen2_5_vl() -> Any:
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "num_heads": 2,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "window_size": 2 * PATCH * MERGE,
        "fullatt_block_indexes": [1, 2],  # the last layer has windows
    }
    config = Qwen2_5_VLConfig(vision_config=vision, text_config=TEXT, tie_word_embeddings=False, **IDS)
    return made(Qwen2_5_VLForConditionalGeneration, config)


CASE = case("qwen2_5_vl", qwen2_5_vl, Qwen2_5_VLProcessor)
