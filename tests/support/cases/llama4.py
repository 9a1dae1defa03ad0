"""Llama 4: padded tiles, CLS at the end, pixel shuffle, a small mixture of experts."""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    Llama4Config,
    Llama4ForConditionalGeneration,
    Llama4Processor,
    Llama4TextConfig,
    Llama4VisionConfig,
)

from tests.support.byhand import ByHand, Row
from tests.support.tiny import LANGUAGE, PATCH, SIDE, Case, seeded, sharpen, tag_id, tokenizer

TAGS = (
    "<|image_start|>",
    "<|image_end|>",
    "<|image|>",
    "<|patch|>",
    "<|tile_x_separator|>",
    "<|tile_y_separator|>",
)


class Llama4ByHand(ByHand):
    """The model projects the features in its `forward`, and the language model has the head inside."""

    def features(self, model: Any, inputs: Any) -> list[Tensor]:
        if "pixel_values" not in inputs:
            return []
        return list(model.multi_modal_projector(model.get_image_features(inputs["pixel_values"]).last_hidden_state))

    def language(self, model: Any, row: Row) -> Tensor:
        found: Tensor = model.language_model.model(
            inputs_embeds=row.embeds[None],
            position_ids=row.positions[None],
            attention_mask=torch.ones(1, len(row.ids), dtype=torch.int64),
            use_cache=False,
        ).last_hidden_state
        return found

    def head(self, model: Any, states: Tensor) -> Tensor:
        found: Tensor = model.language_model.lm_head(states)
        return found


def llama4() -> Any:
    config = Llama4Config(
        vision_config=Llama4VisionConfig(
            hidden_size=32,
            intermediate_size=4 * 32,  # also what the pixel shuffle gives
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
            projector_input_dim=48,
            projector_output_dim=48,
            vision_output_dim=48,
        ).to_dict(),
        text_config=Llama4TextConfig(
            **LANGUAGE, intermediate_size_mlp=96, head_dim=32, num_local_experts=2, layer_types=["full_attention"] * 2
        ).to_dict(),
        boi_token_index=tag_id(TAGS, "<|image_start|>"),
        eoi_token_index=tag_id(TAGS, "<|image_end|>"),
        image_token_index=tag_id(TAGS, "<|patch|>"),
    )
    model = seeded(lambda: Llama4ForConditionalGeneration(config))
    sharpen(model.vision_model, by=6.0)
    model.language_model.register_forward_hook(with_image_outputs)
    return model


def with_image_outputs(module: Any, args: Any, output: Any) -> None:
    """transformers 5.24 cannot run this model as it is: it reads `image_outputs` of an output that has none."""
    if not hasattr(output, "image_outputs"):
        output.image_outputs = None


def llama4_processor(padding_side: str = "left") -> Any:
    from transformers import Llama4ImageProcessor

    class InFloat32(Llama4ImageProcessor):
        """Without the class's rounding to bfloat16, which the models in the tests do not have."""

        def preprocess(self, images: Any, **settings: Any) -> Any:
            found = super().preprocess(images, **settings)
            found["pixel_values"] = found["pixel_values"].float()
            return found

    return Llama4Processor(
        InFloat32(size={"height": SIDE, "width": SIDE}, max_patches=6),
        tokenizer(padding_side, TAGS),
        patch_size=PATCH,
    )


CASE = Case(
    "llama4",
    llama4,
    llama4_processor,
    torchvision=True,
    mark="<|image|>",
    damped=("o_proj.weight", "o_proj.bias"),
    by_hand=Llama4ByHand(),
)
