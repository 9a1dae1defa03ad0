"""Small models with random weights and real processors, built from configurations: no hub, no files.

A family has one `Case` here; tests find the cases through `ALL`, in step with `hired.families`, and through `CASES`,
those whose processors load without torchvision.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.utils import is_torchvision_available

SIDE, PATCH = 32, 8
PINPOINTS = [[SIDE * r, SIDE * c] for r, c in ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (2, 3))]
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "\n", *"abcdefghijklmnopqrstuvwxyz0123456789?.:", *"ABC"]
IMAGE_ID = WORDS.index("<image>")


def tokenizer(padding_side: str = "left") -> PreTrainedTokenizerFast:
    """One token a character."""
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        padding_side=padding_side,
    )


def vision() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        # Large enough that attention is far from uniform, as in a trained encoder.
        initializer_range=0.3,
        initializer_factor=3.0,
    )


def text() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


@dataclass(frozen=True)
class Case:
    """A tiny model of one family.

    Attributes:
        name: `model_type` of the family.
        model: makes the model, always with the same weights.
        processor: makes the processor, for a padding side.
        side: side of the encoder's input in pixels.
        pinpoints: sizes (height, width) of the grids a picture may be cut into.
        by_prompt: the processor is told which pictures share a prompt.
    """

    name: str
    model: Callable[[], Any]
    processor: Callable[[str], Any]
    side: int = SIDE
    pinpoints: tuple[tuple[int, int], ...] = tuple((h, w) for h, w in PINPOINTS)
    by_prompt: bool = False


def _seeded(make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = 2
    return model


def llava_next() -> Any:
    config = LlavaNextConfig(
        vision_config=vision(),
        text_config=text(),
        image_grid_pinpoints=PINPOINTS,
        image_token_index=IMAGE_ID,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    return _seeded(lambda: LlavaNextForConditionalGeneration(config))


def llava_next_processor(padding_side: str = "left") -> Any:
    return LlavaNextProcessor(
        LlavaNextImageProcessorPil(
            size={"shortest_edge": SIDE},
            crop_size={"height": SIDE, "width": SIDE},
            image_grid_pinpoints=PINPOINTS,
        ),
        tokenizer(padding_side),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def llava() -> Any:
    config = LlavaConfig(
        vision_config=vision(),
        text_config=text(),
        image_token_index=IMAGE_ID,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    return _seeded(lambda: LlavaForConditionalGeneration(config))


def llava_processor(padding_side: str = "left") -> Any:
    return LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        tokenizer(padding_side),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


# As in SigLIP-384 with patches of 14, a strip at the far edges is no whole patch and is not seen.
ONEVISION_SIDE = SIDE + 2
ONEVISION_PINPOINTS = [[h // SIDE * ONEVISION_SIDE, w // SIDE * ONEVISION_SIDE] for h, w in PINPOINTS]
MOST_PARTITIONS = "anyres_max_2"
"""Grids of three sub-images and more are resampled."""


def siglip(**settings: Any) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        **{
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": ONEVISION_SIDE,
            "patch_size": PATCH,
            "vision_use_head": False,
            **settings,
        }
    )


def llava_onevision() -> Any:
    config = LlavaOnevisionConfig(
        vision_config=siglip(),
        text_config=text(),
        image_grid_pinpoints=ONEVISION_PINPOINTS,
        vision_aspect_ratio=MOST_PARTITIONS,
        image_token_index=IMAGE_ID,
        video_token_index=WORDS.index("C"),
    )
    model = _seeded(lambda: LlavaOnevisionForConditionalGeneration(config))
    for name, parameter in model.model.vision_tower.named_parameters():
        if "q_proj.weight" in name or "k_proj.weight" in name:
            parameter.data *= 3  # attention far from uniform, as in a trained encoder
    return model


def llava_onevision_processor(padding_side: str = "left") -> Any:
    from transformers import LlavaOnevisionVideoProcessor

    return LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessorPil(
            size={"height": ONEVISION_SIDE, "width": ONEVISION_SIDE}, image_grid_pinpoints=ONEVISION_PINPOINTS
        ),
        tokenizer(padding_side),
        LlavaOnevisionVideoProcessor(),
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=MOST_PARTITIONS,
        video_token="C",
    )


CASES = {
    "llava_next": Case("llava_next", llava_next, llava_next_processor),
    "llava": Case("llava", llava, llava_processor),
}
"""Families whose processors load without torchvision."""

WITH_TORCHVISION = {
    "llava_onevision": Case(
        "llava_onevision",
        llava_onevision,
        llava_onevision_processor,
        side=ONEVISION_SIDE,
        pinpoints=tuple((h, w) for h, w in ONEVISION_PINPOINTS),
        by_prompt=True,
    ),
}

ALL = {**CASES, **WITH_TORCHVISION}


@cache
def shared(name: str) -> Any:
    """The model of a case, shared by tests that leave it as it is."""
    return ALL[name].model()


@cache
def _processor(name: str, padding_side: str) -> Any:
    return ALL[name].processor(padding_side)


def processor(name: str, padding_side: str = "left") -> Any:
    """The processor of a case; skips the test where it cannot be loaded."""
    if name in WITH_TORCHVISION and not is_torchvision_available():
        pytest.skip(f"the processor of {name} needs torchvision: run `make test-families`")
    return _processor(name, padding_side)
