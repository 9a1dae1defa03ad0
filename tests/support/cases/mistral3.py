"""Mistral 3: a Pixtral encoder, all pictures in one sequence, patches merged 2 x 2, a tag behind each row."""

from typing import Any

from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralImageProcessorPil,
    PixtralVisionConfig,
)

from tests.support.tiny import LANGUAGE, Case, seeded, sharpen, tag_id, tokenizer

PATCH, MERGE, LONGEST = 4, 2, 64
TAGS = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")


def mistral3() -> Any:
    config = Mistral3Config(
        vision_config=PixtralVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=LONGEST,
            patch_size=PATCH,
            initializer_range=0.2,
        ).to_dict(),
        text_config=MistralConfig(**LANGUAGE, head_dim=32, sliding_window=None).to_dict(),
        image_token_index=tag_id(TAGS, "[IMG]"),
        spatial_merge_size=MERGE,
        tie_word_embeddings=False,
    )
    model = seeded(lambda: Mistral3ForConditionalGeneration(config))
    sharpen(model.model.vision_tower)
    return model


def mistral3_processor(padding_side: str = "left") -> Any:
    from transformers import PixtralProcessor

    return PixtralProcessor(
        PixtralImageProcessorPil(size={"longest_edge": LONGEST}, patch_size=PATCH),
        tokenizer(padding_side, TAGS),
        patch_size=PATCH,
        spatial_merge_size=MERGE,
    )


CASE = Case(
    "mistral3",
    mistral3,
    mistral3_processor,
    torchvision=True,
    by_prompt=True,
    mark="[IMG]",
    damped=("o_proj.weight",),
)
