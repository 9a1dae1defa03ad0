"""The model to measure: a shape with random weights, or a checkpoint; and its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hired import loading
from hired.bench.settings import Scene, Settings
from hired.costs.randomly import random_model
from hired.costs.shapes import shape_config
from hired.errors import InputsError, ModelLoadError
from hired.families import Family, family_of
from hired.loading.devices import usable_device
from hired.machine import synchronize

__all__ = ["Subject", "dtype_of", "endless", "image_processor", "inputs_for", "load", "pictures", "text_for"]

PLAIN = 512
"""Ids that are text in every vocabulary: special tokens that checkpoints add stand behind them."""


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        name: of the shape or the checkpoint.
        model: in eval mode, on its device; `generate` is greedy and ends at no token.
        image_processor: the family's.
        family: facts of the family.
        random: whether the weights are random.
        llm: the `hired.gguf.LLM` that answers in the model's place; None where the model does.
    """

    name: str
    model: Any
    image_processor: Any
    family: Family
    random: bool
    llm: Any = None

    @property
    def device(self) -> torch.device:
        """Where the inputs go."""
        device: torch.device = self.model.device
        return device

    def synchronize(self) -> None:
        """Waits until the device has done what it was given, so that clocks tell the truth."""
        synchronize(self.device)


def load(settings: Settings) -> Subject:
    """Makes or loads the model.

    Raises:
        ModelLoadError: device, dtype or checkpoint cannot be had.
    """
    if settings.llama:
        from hired.bench.llama import load_llama

        return load_llama(settings)
    if settings.model is not None:
        loaded = loading.load(settings.model, settings.device, settings.dtype, settings.trust_remote_code)
        model, processor = loaded.model, loaded.processor.image_processor
    else:
        device = usable_device(settings.device)
        config = shape_config(settings.subject)
        model = random_model(config, device, dtype_of(settings, device))
        processor = image_processor(config)
    if model.device.type == "cuda":
        torch.cuda.set_device(model.device)
    model.generation_config = endless()
    return Subject(settings.subject, model, processor, family_of(model), random=settings.model is None)


def endless() -> Any:
    """The `GenerationConfig` under which every run makes as many tokens as it is told: greedy, and ended by none."""
    from transformers import GenerationConfig

    return GenerationConfig(do_sample=False, num_beams=1, pad_token_id=0, eos_token_id=None)


def dtype_of(settings: Settings, device: torch.device) -> torch.dtype:
    """Of a shape's weights in PyTorch."""
    if settings.dtype != "auto":
        dtype: torch.dtype = getattr(torch, settings.dtype)
        return dtype
    if settings.subject == "tiny":
        return torch.float32
    return torch.bfloat16 if device.type == "cpu" else torch.float16


def image_processor(config: Any) -> Any:
    """The image processor of the shape's family, without torchvision."""
    from transformers import CLIPImageProcessorPil, LlavaNextImageProcessorPil

    side = int(config.vision_config.image_size)
    common: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    if config.model_type == "llava_next":
        return LlavaNextImageProcessorPil(image_grid_pinpoints=config.image_grid_pinpoints, **common)
    if config.model_type == "llava":
        return CLIPImageProcessorPil(**common)
    raise ModelLoadError(f"no image processor is known for shapes of type {config.model_type!r}: use --model")


def pictures(scene: Scene) -> list[Any]:
    """Pictures of noise, all different: nothing in them is blank or occurs twice, so nothing can be saved on them."""
    import numpy
    from PIL import Image

    width, height = scene.image
    generator = numpy.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=numpy.uint8)) for _ in range(scene.batch)
    ]


def inputs_for(subject: Subject, images: list[Any], text_tokens: int) -> dict[str, Tensor]:
    """Preprocesses: what a processor returns for these pictures and a prompt of `text_tokens` beside each.

    Returns:
        `input_ids` and `attention_mask` (batch, length), `pixel_values` and what belongs to them, on the device.

    Raises:
        InputsError: pictures of a size that the processor takes none of.
    """
    try:
        made: Mapping[str, Any] = subject.image_processor(images=images, return_tensors="pt")
    except (ValueError, ZeroDivisionError) as error:
        width, height = images[0].size
        raise InputsError(f"the image processor takes no pictures of {width}x{height}: {error}") from error
    given = {key: made[key] for key in subject.family.image_keys}
    layouts = subject.family.layouts(subject.model, given, None)
    count = layouts[0].tokens_full  # all pictures are of one size
    words = _words(subject.model, text_tokens)
    image = torch.full((count,), subject.family.image_token(subject.model))
    ids = torch.cat((words[: text_tokens // 2], image, words[text_tokens // 2 :])).repeat(len(images), 1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **given}
    return {key: value.to(subject.device) for key, value in inputs.items()}


def text_for(subject: Subject, batch: int, length: int) -> dict[str, Tensor]:
    """A prompt of `length` text tokens, in every row: what the LLM costs without pictures."""
    ids = _words(subject.model, length).repeat(batch, 1).to(subject.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _words(model: Any, count: int) -> Tensor:
    """(count,) int64 random ids that are not the placeholder."""
    image = family_of(model).image_token(model)
    vocabulary = int(model.config.text_config.vocab_size)
    known = torch.tensor([i for i in range(min(vocabulary, PLAIN)) if i != image])
    return known[torch.randint(len(known), (count,), generator=torch.Generator().manual_seed(0))]
