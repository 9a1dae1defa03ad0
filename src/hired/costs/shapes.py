"""Exact architectures by name, and the configuration of any model that HiRED supports.

Speed and memory do not depend on the weights' values, so a shape with random weights costs what the checkpoint does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hired.errors import ModelLoadError

__all__ = ["SHAPES", "Shape", "config_of", "meta_model", "shape_config"]

_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


@dataclass(frozen=True)
class Shape:
    """One architecture.

    Attributes:
        name: as the command line calls it.
        about: what it is, in one line.
        make: builds its configuration.
    """

    name: str
    about: str
    make: Callable[[], Any]


def _clip_l() -> Any:
    """CLIP-L/14 at 336 px: openai/clip-vit-large-patch14-336 as the LLaVA checkpoints configure it."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
        image_size=336,
        projection_dim=768,
    )


def _vicuna_7b() -> Any:
    """lmsys/vicuna-7b-v1.5, its vocabulary grown for `<image>` and `<pad>` and padded to a multiple of 64."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=32064,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
    )


def _qwen2_half_b() -> Any:
    """Qwen/Qwen2-0.5B: grouped queries (2 key-value heads), output tied to the embeddings."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
    )


def _llava_next_7b() -> Any:
    from transformers import LlavaNextConfig

    return LlavaNextConfig(
        vision_config=_clip_l(), text_config=_vicuna_7b(), image_grid_pinpoints=_PINPOINTS, image_token_index=32000
    )


def _llava_next_half_b() -> Any:
    from transformers import LlavaNextConfig

    return LlavaNextConfig(
        vision_config=_clip_l(),
        text_config=_qwen2_half_b(),
        image_grid_pinpoints=_PINPOINTS,
        image_token_index=151646,
        tie_word_embeddings=True,
    )


def _llava_15_7b() -> Any:
    from transformers import LlavaConfig

    return LlavaConfig(vision_config=_clip_l(), text_config=_vicuna_7b(), image_token_index=32000)


def _tiny() -> Any:
    from transformers import AutoConfig

    from hired.tiny import WEIGHTS

    return AutoConfig.from_pretrained(WEIGHTS, local_files_only=True, trust_remote_code=False)


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("llava-next-7b", "llava-v1.6-vicuna-7b: CLIP-L/14-336 and vicuna-7B", _llava_next_7b),
        Shape("llava-next-0.5b", "LLaVA-NeXT with CLIP-L/14-336 and Qwen2-0.5B", _llava_next_half_b),
        Shape("llava-1.5-7b", "LLaVA-1.5-7B: CLIP-L/14-336 and vicuna-7B, one partition", _llava_15_7b),
        Shape("tiny", "the model that ships with the package", _tiny),
    )
}
"""The shapes by name, for `hired plan` and `hired bench`."""


def shape_config(name: str) -> Any:
    """The configuration of a shape, made anew. Nothing is downloaded.

    Raises:
        ModelLoadError: no shape of this name.
    """
    if name not in SHAPES:
        raise ModelLoadError(f"no shape {name!r}: use one of {', '.join(SHAPES)}")
    return SHAPES[name].make()


def config_of(name: str, trust_remote_code: bool = False) -> Any:
    """The configuration of a shape, a directory, or a hub id (only `config.json` is read, and no weights).

    Args:
        name: of it.
        trust_remote_code: run code that comes with the checkpoint, where its configuration needs that.

    Raises:
        ModelLoadError: nothing of this name, or a configuration of no model that can be.
        UnsupportedModelError: a model of no known family.
    """
    if name in SHAPES:
        return shape_config(name)
    from hired.loading.checkpoints import load_config

    path = Path(name).expanduser()
    if path.exists() and not (path / "config.json").is_file():
        raise ModelLoadError(f"{name!r} holds no config.json: name a model directory, or a shape: {', '.join(SHAPES)}")
    if path.exists():
        return load_config(str(path), name, trust_remote_code)
    try:
        return load_config(name, name, trust_remote_code)
    except ModelLoadError as error:
        if "--trust-remote-code" in str(error):
            raise
        raise ModelLoadError(f"{error}; the shapes are {', '.join(SHAPES)}") from error


def meta_model(config: Any) -> Any:
    """The model of a configuration on the meta device: every module and shape, no memory for its parameters."""
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config, trust_remote_code=False).eval()
