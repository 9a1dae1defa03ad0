"""Qwen3-VL: DeepStack features beside the usual ones."""

from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from tests.support.byhand import Row
from tests.support.cases.qwen import IDS, MERGE, PATCH, TEXT, QwenByHand, case, made


def qwen3_vl() -> Any:
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "num_heads": 2,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 2],
    }
    text = {**TEXT, "head_dim": 32}
    config = Qwen3VLConfig(vision_config=vision, text_config=text, tie_word_embeddings=False, **IDS)
    return made(Qwen3VLForConditionalGeneration, config)


class Qwen3ByHand(QwenByHand):
    """Every feature is (1 + DeepStack layers, hidden); the others go to the LLM's first layers, at the same tokens."""

    def features(self, model: Any, inputs: Any) -> list[Tensor]:
        if "pixel_values" not in inputs:
            return []
        found = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True)
        layers = [found.pooler_output, *found.deepstack_features]
        return [torch.stack(parts, 1) for parts in zip(*layers, strict=True)]

    def embeds(self, features: Tensor) -> Tensor:
        return features[:, 0]

    def language(self, model: Any, row: Row) -> Tensor:
        visual = row.ids == self.token(model)
        found: Tensor = model.model.language_model(
            inputs_embeds=row.embeds[None],
            position_ids=row.positions[:, None],
            attention_mask=torch.ones(1, len(row.ids), dtype=torch.int64),
            visual_pos_masks=visual[None] if visual.any() else None,
            deepstack_visual_embeds=list(row.features[:, 1:].unbind(1)) if visual.any() else None,
            use_cache=False,
        ).last_hidden_state
        return found


CASE = case("qwen3_vl", qwen3_vl, Qwen3VLProcessor, Qwen3ByHand())
