"""Prompts for the served tiny models, and the library's answers to them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor

import hired
from hired import forms
from tests.support import models
from tests.support.pictures import noise

Picture = Image.Image


def onevision() -> tuple[Any, Any]:
    """The library's random LLaVA-OneVision, packed as vLLM packs, with grids large enough to be resampled."""
    grids = [
        *models.ONEVISION_PINPOINTS,
        [4 * models.ONEVISION_SIDE] * 2,
        [2 * models.ONEVISION_SIDE, 6 * models.ONEVISION_SIDE],
    ]
    model, processor = models.ALL["llava_onevision"].model(), models.ALL["llava_onevision"].processor()
    model.config.image_grid_pinpoints = processor.image_processor.image_grid_pinpoints = grids
    model.config.vision_aspect_ratio = processor.vision_aspect_ratio = "anyres_max_9"
    return model, processor


def qwen3() -> tuple[Any, Any]:
    """The library's random Qwen3-VL, told as its checkpoints are of what transformers does anyway."""
    model = models.ALL["qwen3_vl"].model()
    model.config.text_config.rope_parameters["mrope_interleaved"] = True
    return model, models.processor("qwen3_vl")


QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")

MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava_next": lambda: (models.shared("llava_next"), models.processor("llava_next")),
    "llava": lambda: (models.shared("llava"), models.processor("llava")),
    "llava_onevision": onevision,
    "internvl": lambda: (models.shared("internvl"), models.processor("internvl")),
    "qwen2_vl": lambda: (models.shared("qwen2_vl"), models.processor("qwen2_vl")),
    "qwen2_5_vl": lambda: (models.shared("qwen2_5_vl"), models.processor("qwen2_5_vl")),
    "qwen3_vl": qwen3,
}
"""Random models and their processors."""


@dataclass
class Case:
    """A model that both libraries load.

    Attributes:
        name: "tiny" for the shipped model, else one of `MODELS`.
        folder: the checkpoint, in vLLM's form.
        model: the transformers model.
    """

    name: str
    folder: Path
    model: Any

    @cached_property
    def processor(self) -> Any:
        """The processor, read from the checkpoint as vLLM does: with torchvision, pixels differ a little."""
        return AutoProcessor.from_pretrained(self.folder)


def prompt(case: Case, pictures: list[Picture], question: str) -> str:
    """A prompt with the pictures at its start."""
    if case.name == "tiny":
        return "<s><|user|>" + "<image>" * len(pictures) + question + "<|assistant|>"
    return models.ALL[case.name].mark.join(["ab", *("c" * index for index in range(len(pictures)))]) + question


def pages(count: int) -> list[tuple[Picture, str]]:
    """Pictures the shipped model reads, of different sizes, and a question to each."""
    drawn = (forms.page(seed) for seed in forms.DEMO_SEEDS)
    found = ((page.image, page.question()) for page in drawn if page.fields)
    return [pair for pair, _ in zip(found, range(count), strict=False)]


def noisy(sizes: list[tuple[int, int]]) -> list[Picture]:
    return [noise(size, seed) for seed, size in enumerate(sizes)]


def request(case: Case, pictures: list[Picture], question: str, budget: object = None) -> dict[str, Any]:
    """A request for `LLM.generate`."""
    data: dict[str, Any] = {"prompt": prompt(case, pictures, question)}
    if pictures:
        data["multi_modal_data"] = {"image": pictures}
    if budget is not None:
        data["mm_processor_kwargs"] = {"hired_budget": budget}
    return data


def unpruned_requests(case: Case) -> list[dict[str, Any]]:
    """Requests for `tests.vllm.stock`."""
    asked = [(noisy([(64, 64), (90, 31), (30, 80)]), "what is a?"), (noisy([(20, 90)]), "b:"), ([], "total c?")]
    return [request(case, pictures, question) for pictures, question in asked]


def answer(
    case: Case, pictures: list[Picture], question: str, budget: float, new: int = 8, method: str = "hired"
) -> tuple[list[int], Any]:
    """Greedy tokens of transformers with `hired.reduce`, and the reduced inputs."""
    text = prompt(case, pictures, question)
    inputs = case.processor(text=text, images=pictures or None, return_tensors="pt", add_special_tokens=False)
    reduced = hired.reduce(case.model, inputs, budget=budget, method=method)
    with torch.inference_mode():
        output = case.model.generate(**reduced, max_new_tokens=new, do_sample=False)
    return output[0, reduced["input_ids"].shape[1] :].tolist(), reduced


def greedy(new: int = 8) -> Any:
    """Sampling that transformers' greedy search does too."""
    from vllm import SamplingParams

    return SamplingParams(temperature=0, max_tokens=new)


def generate(llm: Any, requests: list[dict[str, Any]], new: int = 8) -> list[list[int]]:
    """Greedy tokens of an engine, all requests at once."""
    outputs = llm.generate(requests, greedy(new), use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def clear(llm: Any) -> None:
    """Makes an engine forget every picture: a method that is changed in place is not in its caches' keys."""
    llm.llm_engine.reset_mm_cache()
    llm.reset_prefix_cache()
    llm.llm_engine.reset_encoder_cache()


def features_of(reduced: Any) -> torch.Tensor:
    """(K, width): what the LLM gets of all pictures of the library's reduced inputs, DeepStack features last."""
    outputs = reduced["mm_encoder_outputs"]["image"]
    every = [outputs.pooler_output, *(getattr(outputs, "deepstack_features", None) or ())]
    return torch.cat([torch.cat(list(features)).flatten(0, -2) for features in every], 1)


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    """Features of the two libraries are equal up to rounding."""
    torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-4)


def model_of(llm: Any) -> Any:
    """The model inside an engine of this process."""
    found: list[Any] = llm.apply_model(lambda model: model)
    return found[0]


@contextmanager
def watched(pruned: Any) -> Iterator[list[list[int] | None]]:
    """Collects what a `PrunedEncoder` keeps of each picture it encodes, in the order of encoding."""
    kept: list[list[int] | None] = []
    select = pruned.select

    def spy(*args: Any) -> Any:
        rows = select(*args)
        kept.extend(None if each is None else each.tolist() for each in rows)
        return rows

    pruned.select = spy
    try:
        yield kept
    finally:
        del pruned.select
