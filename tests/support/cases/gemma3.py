"""Gemma 3: SigLIP, averaged patches, image tokens that see each other in the language model."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Gemma3TextConfig,
)

from tests.support.byhand import ByHand, Row
from tests.support.tiny import LANGUAGE, Case, seeded, sharpen, siglip, tag_id, tokenizer

# Nine whole patches along a side, a strip of two pixels that is none, and one patch that the 2 x 2 pooling leaves out.
SIDE, PATCH, ALONG = 38, 4, 4
TAGS = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
WINDOW = 30


class Gemma3ByHand(ByHand):
    """Tokens of one entry see each other; in one of the two layers nobody sees further back than a window."""

    keys = ("pixel_values",)

    def language(self, model: Any, row: Row) -> Tensor:
        visual = row.ids == self.token(model)
        visual &= visual.cumsum(0) <= len(row.features)  # the others were generated
        block = (visual & ~torch.cat((torch.zeros(1, dtype=torch.bool), visual[:-1]))).cumsum(0)
        place = torch.arange(len(row.ids))
        sees = place[None] <= place[:, None]
        sees |= visual[None] & visual[:, None] & (block[None] == block[:, None])
        near = place[:, None] - place[None] < WINDOW
        masks = {"full_attention": sees, "sliding_attention": sees & near}
        found: Tensor = model.model.language_model(
            inputs_embeds=row.embeds[None],
            position_ids=row.positions[None],
            attention_mask={name: mask[None, None] for name, mask in masks.items()},
            use_cache=False,
        ).last_hidden_state
        return found


def gemma3() -> Any:
    language = Gemma3TextConfig(
        **LANGUAGE,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
    )
    config = Gemma3Config(
        vision_config=siglip(num_hidden_layers=3, image_size=SIDE, patch_size=PATCH).to_dict(),
        text_config=language.to_dict(),
        mm_tokens_per_image=ALONG**2,
        boi_token_index=tag_id(TAGS, "<start_of_image>"),
        eoi_token_index=tag_id(TAGS, "<end_of_image>"),
        image_token_index=tag_id(TAGS, "<image_soft_token>"),
        tie_word_embeddings=False,
    )

    def make() -> Any:
        model = Gemma3ForConditionalGeneration(config)
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.2)  # zero at first
        return model

    model = seeded(make)
    sharpen(model.model.vision_tower)
    return model


def gemma3_processor(padding_side: str = "left", **settings: Any) -> Any:
    names = ("boi_token", "eoi_token", "image_token")
    processor = Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer(padding_side, TAGS, extra_special_tokens=dict(zip(names, TAGS, strict=True))),
        image_seq_length=ALONG**2,
    )
    return partial(processor, **settings) if settings else processor


CASE = Case(
    "gemma3",
    gemma3,
    gemma3_processor,
    side=SIDE,
    by_prompt=True,
    mark="<start_of_image>",
    cut=False,
    by_hand=Gemma3ByHand(),
)
