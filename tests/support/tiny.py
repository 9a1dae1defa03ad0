"""What the tiny models of all families are built from: a tokenizer, encoders, a language model, and what a case is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedTokenizerFast, SiglipVisionConfig

from tests.support.byhand import ByHand

SIDE, PATCH = 32, 8
PINPOINTS = [[SIDE * r, SIDE * c] for r, c in ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (2, 3))]
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "\n", *"abcdefghijklmnopqrstuvwxyz0123456789?.:", *"ABC"]
IMAGE_ID = WORDS.index("<image>")
VOCABULARY = 128
"""Ids that the tiny language models know: `WORDS` and the tags that some processors write."""


def tokenizer(padding_side: str = "left", tags: tuple[str, ...] = (), **settings: Any) -> PreTrainedTokenizerFast:
    """One token a character, and one for each of `tags`, behind `WORDS`."""
    words = [*WORDS, *(tag for tag in tags if tag not in WORDS)]
    assert len(words) <= VOCABULARY
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>", *tags],
        padding_side=padding_side,
        **settings,
    )


def tag_id(tags: tuple[str, ...], tag: str) -> int:
    """The id that `tokenizer` gives to one of its tags."""
    return [*WORDS, *(other for other in tags if other not in WORDS)].index(tag)


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


def siglip(**settings: Any) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        **{
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
            "vision_use_head": False,
            **settings,
        }
    )


LANGUAGE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Settings that the configurations of most language models take."""


def text(**settings: Any) -> LlamaConfig:
    return LlamaConfig(**{**LANGUAGE, "vocab_size": len(WORDS), **settings})


def seeded(make: Callable[[], Any]) -> Any:
    """The model, always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = 2
    return model


def sharpen(tower: Any, names: tuple[str, ...] = ("q_proj.weight", "k_proj.weight"), by: float = 3.0) -> None:
    """Scales query and key weights up, so that attention is far from uniform, as in a trained encoder."""
    found = [parameter for name, parameter in tower.named_parameters() if name.endswith(names)]
    assert found
    for parameter in found:
        parameter.data *= by


@dataclass(frozen=True)
class Case:
    """A tiny model of one family.

    Attributes:
        name: `model_type` of the family.
        model: makes the model, always with the same weights.
        processor: makes the processor, for a padding side.
        side: side of the encoder's input in pixels.
        pinpoints: sizes (height, width) of the grids a picture may be cut into, where the model has such a list.
        torchvision: the processor needs it.
        by_prompt: the processor is given one list of pictures a prompt.
        mark: what stands for a picture in a prompt.
        sizes: (width, height) of pictures that are cut into unlike grids.
        cut: they are; False where the encoder sees the same square of every picture.
        cells: cells along the side of what a partition is painted in, where all are alike.
        damped: ends of names of encoder weights that carry what one patch shows to others.
        by_hand: how to work out by hand what a reduced prompt gives.
    """

    name: str
    model: Callable[[], Any]
    processor: Callable[[str], Any]
    side: int = SIDE
    pinpoints: tuple[tuple[int, int], ...] = ()
    torchvision: bool = False
    by_prompt: bool = False
    mark: str = "<image>"
    sizes: tuple[tuple[int, int], ...] = ((64, 64), (90, 31), (30, 80), (70, 50), (20, 20))
    cut: bool = True
    damped: tuple[str, ...] = ("out_proj.weight", "out_proj.bias")
    by_hand: ByHand = field(default_factory=ByHand)
