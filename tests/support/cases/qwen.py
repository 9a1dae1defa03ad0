"""What the Qwen-VL cases share: prompts, positions by hand, and how their parts are called."""

from typing import Any

import torch
from torch import Tensor

from tests.support.byhand import ByHand
from tests.support.tiny import LANGUAGE, Case, seeded, sharpen, tag_id, tokenizer

TAGS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
PATCH = 4
MERGE = 2

TEXT = {
    **LANGUAGE,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
    "tie_word_embeddings": False,
}
IDS = {
    "image_token_id": tag_id(TAGS, "<|image_pad|>"),
    "video_token_id": tag_id(TAGS, "<|video_pad|>"),
    "vision_start_token_id": tag_id(TAGS, "<|vision_start|>"),
    "vision_end_token_id": tag_id(TAGS, "<|vision_end|>"),
}


def made(model_class: Any, config: Any) -> Any:
    model = seeded(lambda: model_class(config))
    sharpen(model.model.visual, ("attn.qkv.weight",), 12.0)
    return model


def processor_of(processor_class: Any, padding_side: str) -> Any:
    from transformers import Qwen2VLImageProcessorPil, Qwen2VLVideoProcessor

    pixels = {"shortest_edge": 4 * (PATCH * MERGE) ** 2, "longest_edge": 64 * (PATCH * MERGE) ** 2}
    return processor_class(
        Qwen2VLImageProcessorPil(size=pixels, patch_size=PATCH, merge_size=MERGE),
        tokenizer(padding_side, TAGS),
        Qwen2VLVideoProcessor(patch_size=PATCH, merge_size=MERGE),
    )


class QwenByHand(ByHand):
    """Positions with three axes: a text token has one more than the greatest before it on all three; the tokens of a
    picture share their time, and count rows and columns from there.
    """

    keys = ("pixel_values", "image_grid_thw")

    def places(self, model: Any, ids: Tensor, inputs: Any, image: int) -> Tensor:
        found: list[list[int]] = []
        place = 0
        while place < len(ids):
            start = max((max(each) for each in found), default=-1) + 1
            if int(ids[place]) != self.token(model):
                found.append([start] * 3)
                place += 1
                continue
            _, rows, columns = (int(value) for value in inputs["image_grid_thw"][image])
            rows, columns = rows // MERGE, columns // MERGE
            found += [[start, start + row, start + column] for row in range(rows) for column in range(columns)]
            place += rows * columns
            image += 1
        return torch.tensor(found).T


def case(name: str, model: Any, processor_class: Any, by_hand: ByHand | None = None) -> Case:
    return Case(
        name,
        model,
        lambda side="left": processor_of(processor_class, side),
        torchvision=True,
        mark="<|vision_start|><|image_pad|><|vision_end|>",
        damped=("attn.proj.weight", "attn.proj.bias"),
        by_hand=by_hand or QwenByHand(),
    )
