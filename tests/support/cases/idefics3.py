"""Idefics3: tagged tiles and the full image, pixel shuffle, a Llama language model."""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
)

from tests.support.byhand import ByHand, Row
from tests.support.tiny import IMAGE_ID, SIDE, VOCABULARY, Case, seeded, sharpen, text, tokenizer

PATCH = 4
CORNERS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))
TAGS = ("<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *CORNERS)
ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "initializer_range": 0.1,
}


class TaggedByHand(ByHand):
    """The language model is called `text_model`."""

    keys = ("pixel_values", "pixel_attention_mask")

    def language(self, model: Any, row: Row) -> Tensor:
        found: Tensor = model.model.text_model(
            inputs_embeds=row.embeds[None],
            position_ids=row.positions[None],
            attention_mask=torch.ones(1, len(row.ids), dtype=torch.int64),
            use_cache=False,
        ).last_hidden_state
        return found


def idefics3() -> Any:
    config = Idefics3Config(
        vision_config={**ENCODER, "image_size": SIDE, "patch_size": PATCH},
        text_config=text(vocab_size=VOCABULARY).to_dict(),
        image_token_id=IMAGE_ID,
        scale_factor=2,
        tie_word_embeddings=False,
    )
    model = seeded(lambda: Idefics3ForConditionalGeneration(config))
    sharpen(model.model.vision_model)
    return model


def idefics3_processor(padding_side: str = "left") -> Any:
    return Idefics3Processor(
        Idefics3ImageProcessorPil(size={"longest_edge": 3 * SIDE}, max_image_size={"longest_edge": SIDE}),
        tokenizer(padding_side, TAGS),
        image_seq_len=(SIDE // PATCH // 2) ** 2,
    )


CASE = Case(
    "idefics3",
    idefics3,
    idefics3_processor,
    by_prompt=True,
    sizes=((90, 31), (30, 80), (64, 64), (96, 20), (25, 96)),
    by_hand=TaggedByHand(),
)
