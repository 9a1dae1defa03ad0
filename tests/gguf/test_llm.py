"""What llama.cpp computes of reduced inputs is what transformers computes: logits, and ids."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("llama_cpp", reason="needs llama.cpp")

from examples.demo import pages

import hired
from hired import gguf, prompts
from tests.gguf import support
from tests.support import models, pictures

GREEDY = {"do_sample": False, "pad_token_id": 0}
COARSE = {"gemma3": 1e-3}
"""llama.cpp looks GELU up in a table of float16."""


def rows_of(name: str) -> list[list[pictures.Size] | None]:
    first, second, *_ = models.ALL[name].sizes
    return [[first, second], [second], None]


@pytest.mark.parametrize("name", support.RUN)
def test_logits_and_ids_are_those_of_transformers(name: str, engine: Any) -> None:
    """Text before, between and behind the pictures; budget 1 is what the untouched model computes."""
    model, llm = support.model(name), engine(name)
    for row in rows_of(name):
        inputs = pictures.inputs(name, [row])
        for budget in (1.0, 0.5, 0.1):
            reduced = hired.reduce(model, inputs, budget)
            with torch.no_grad():
                wanted = model(**reduced).logits[0, -1]
            # The file has no rows for ids beyond the language model's.
            found = llm.next_logits(reduced)[: len(wanted)]
            close = COARSE.get(name, 1e-4)
            torch.testing.assert_close(found, wanted, atol=close * float(wanted.abs().max()), rtol=0)
            wanted_ids = model.generate(**hired.reduce(model, inputs, budget), **GREEDY, max_new_tokens=10)
            assert torch.equal(llm.generate(reduced, max_new_tokens=10), wanted_ids)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_left_out(name: str, side: str, engine: Any) -> None:
    """One row of a padded batch, as its own inputs."""
    model, llm = support.model(name), engine(name)
    reduced = hired.reduce(model, pictures.inputs(name, [[models.ALL[name].sizes[0]]]), 0.5)
    data, count = dict(reduced), 3
    for key in ("input_ids", "attention_mask", "position_ids", "mm_token_type_ids"):
        if key in data:
            pad = data[key].new_zeros((*data[key].shape[:-1], count))
            data[key] = torch.cat((pad, data[key]) if side == "left" else (data[key], pad), -1)
    padded = hired.ReducedInputs(data, model=model)
    assert torch.equal(llm.next_logits(padded), llm.next_logits(reduced))
    new = llm.generate(padded, max_new_tokens=6)[:, padded["input_ids"].shape[1] :]
    assert torch.equal(new, llm.generate(reduced, max_new_tokens=6)[:, reduced["input_ids"].shape[1] :])


def test_unreduced_features_are_the_models_own(engine: Any) -> None:
    """Under a budget of everything the tower encodes once, as the model would."""
    model, llm = support.model("llava_next"), engine("llava_next")
    inputs = pictures.inputs("llava_next", [[(90, 31)]])
    calls: list[Any] = []
    hook = model.model.vision_tower.register_forward_hook(lambda _, args, out: calls.append(out))
    try:
        llm.next_logits(hired.reduce(model, inputs, 1.0))
    finally:
        hook.remove()
    assert len(calls) == 1


@cache
def shipped() -> tuple[Any, Any]:
    return hired.load_tiny()


def inputs_of(processor: Any, count: int) -> list[Any]:
    """Pages with a question each, as the processor makes them."""
    return [
        processor(text=prompts.prompt(processor, question), images=page.image, return_tensors="pt")
        for page, (question, _, _) in pages(count)
    ]


def asked(budget: float) -> list[tuple[Any, torch.Tensor]]:
    """Twenty pages with a question each, reduced, and transformers' answers."""
    model, processor = shipped()
    found = []
    for inputs in inputs_of(processor, 20):
        reduced = hired.reduce(model, inputs, budget)
        found.append((reduced, model.generate(**reduced, max_new_tokens=8, do_sample=False)))
    return found


@pytest.mark.parametrize("budget", [1.0, 0.2, 0.05])
def test_the_shipped_model_answers_twenty_pages_alike(budget: float, tmp_path: Path) -> None:
    """As it is used: half-precision cache, fused attention, weights in 8 bits. In 4 bits one answer may be another."""
    (model, processor), answers = shipped(), asked(budget)
    for type, least in (("f32", 20), ("q8_0", 20), ("q4_k_m", 19)):
        path = tmp_path / f"tiny-{type}.gguf"
        gguf.export(model, processor, path, type)
        with gguf.LLM(path, tower=model, processor=processor, threads=1) as llm:
            alike = sum(torch.equal(llm.generate(reduced, max_new_tokens=8), wanted) for reduced, wanted in answers)
        assert alike >= least, (type, alike)


def test_the_three_lines(tmp_path: Path) -> None:
    """A tower without a language model, a file, and what the tower reduced."""
    model, processor = shipped()
    path = tmp_path / "tiny.gguf"
    gguf.export(model, processor, path, "f32")
    tower, own = gguf.load_tower("tiny", device="cpu")
    [inputs] = inputs_of(own, 1)
    with gguf.LLM(path, threads=1) as llm:
        for budget in (1.0, 0.2):
            wanted = model.generate(**hired.reduce(model, inputs, budget), max_new_tokens=8, do_sample=False)
            assert torch.equal(llm.generate(hired.reduce(tower, inputs, budget), max_new_tokens=8), wanted)


def test_a_tower_brings_its_processor(tmp_path: Path) -> None:
    """Stop strings need no vocabulary in the file then."""
    model, processor = shipped()
    path = tmp_path / "tiny.gguf"
    gguf.export(model, None, path, "f32")
    tower, own = gguf.load_tower("tiny", device="cpu")
    [inputs] = inputs_of(own, 1)
    start = inputs["input_ids"].shape[1]
    whole = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, start:]
    with gguf.LLM(path, threads=1) as llm:
        stop = processor.decode(whole[:1])
        assert llm.generate(hired.reduce(tower, inputs, 1.0), max_new_tokens=8, stop=stop)[0, start:].tolist() == [
            int(whole[0])
        ]


@pytest.mark.parametrize("name", ["llava", "qwen3_vl"])
def test_prompts_longer_than_what_is_computed_at_once(name: str, engine: Any) -> None:
    """More text and more visual tokens than fit into one batch."""
    from hired.gguf import llama

    model, llm = support.model(name), engine(name)
    sizes = [models.ALL[name].sizes[0]] * (60 if name == "llava" else 12)
    inputs = pictures.inputs(name, [sizes], texts=["a?b:" * 200])
    reduced = hired.reduce(model, inputs, 0.9)
    assert reduced["input_ids"].shape[1] > 2 * llama.MOST_AT_ONCE
    with torch.no_grad():
        wanted = model(**reduced).logits[0, -1]
    found = llm.next_logits(reduced)[: len(wanted)]
    torch.testing.assert_close(found, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)


def test_the_context_follows_the_reduced_prompt(engine: Callable[..., Any]) -> None:
    """That is where memory is saved; one that is large enough is used again."""
    model, llm = support.model("llava_next"), engine("llava_next")
    inputs = pictures.inputs("llava_next", [[(64, 64)] * 8])
    lengths = []
    for budget in (0.1, 0.1, 1.0, 0.1):
        reduced = hired.reduce(model, inputs, budget)
        llm.generate(reduced, max_new_tokens=2)
        lengths.append((llm.context_size, reduced["input_ids"].shape[1]))
    sizes = [size for size, _ in lengths]
    assert sizes[0] == sizes[1] < sizes[2] == sizes[3]
    assert all(size < length + 2 + 256 for size, length in lengths[:3])
