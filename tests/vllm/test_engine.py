"""The engine in this process: answers, caches, batches."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.utils import group_and_batch_mm_kwargs

from hired.errors import InputsError
from hired.methods import HiRED
from hired.vllm.encoding import EngineError
from tests.vllm.support import (
    QWEN,
    Case,
    answer,
    generate,
    greedy,
    model_of,
    noisy,
    pages,
    prompt,
    request,
    unpruned_requests,
    watched,
)

BUDGET = 0.3
SIZES = [(64, 64), (90, 31), (30, 80), (20, 20)]


def questions(case: Case) -> list[tuple[list[Any], str, float | None]]:
    """Pictures, question, and the request's own budget."""
    if case.name == "tiny":
        read = pages(5)
        asked = [([image], question, None) for image, question in read]
        asked += [([read[0][0], read[1][0]], read[1][1], None), ([read[2][0]], read[2][1], 0.1)]
        return [*asked, ([read[3][0]], read[3][1], 40), ([], "What is TOTAL?", None)]
    pictures = noisy([*SIZES, (190, 190), (250, 80)] if case.name == "llava_onevision" else SIZES)
    asked = [([picture], "what is a?", None) for picture in pictures]
    return [*asked, (pictures[:3], "b:", None), (pictures[1:3], "b:", 0.1), ([pictures[0]], "total c?", 3)]


@pytest.mark.parametrize("name", ["tiny", "llava_next", "llava", "llava_onevision", "internvl", *QWEN])
def test_same_tokens_and_same_kept_rows_as_the_library(engine: Any, cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    llm = engine(case, {"budget": BUDGET}, max_num_batched_tokens=64, enable_prefix_caching=True)
    asked = questions(case)
    expected = [answer(case, pictures, question, own or BUDGET) for pictures, question, own in asked]
    seen = set()
    one_by_one = []
    for (pictures, question, own), (_, reduced) in zip(asked, expected, strict=True):
        with watched(model_of(llm).pruned) as kept:
            one_by_one += generate(llm, [request(case, pictures, question, own)])
        rows = [tuple(entry.rows) for entry in reduced.selection]
        assert {tuple(row) for row in kept} <= set(rows)  # what an earlier request encoded may still be cached
        seen |= {tuple(row) for row in kept}
    assert seen == {tuple(entry.rows) for _, reduced in expected for entry in reduced.selection}
    assert one_by_one == [tokens for tokens, _ in expected]
    # All at once, in chunks, with the caches warm and then cold.
    assert generate(llm, [request(case, *each) for each in asked]) == one_by_one
    llm.reset_prefix_cache()
    assert generate(llm, [request(case, *each) for each in reversed(asked)]) == one_by_one[::-1]


def test_repeated_pictures_under_different_budgets(engine: Any, cases: dict[str, Case]) -> None:
    """The prefix, encoder and processor caches hold a picture under one budget; the next request has another."""
    case = cases["tiny"]
    llm = engine(case, {"budget": 1.0}, max_num_batched_tokens=512, enable_prefix_caching=True)
    [(picture, question), (other, _)] = pages(2)
    budgets = [0.1, 1.0, 0.4, 0.1, 200, 0.4, 1.0, 200]
    expected = {own: answer(case, [picture, other], question, own) for own in budgets}
    for own in budgets:
        kept = [entry.tokens_kept for entry in expected[own][1].selection]
        asked = request(case, [picture, other], question, own)
        output = llm.generate([asked], greedy(), use_tqdm=False)[0]
        assert output.prompt_token_ids == expected[own][1]["input_ids"][0].tolist()
        assert output.prompt_token_ids.count(case.model.config.image_token_id) == sum(kept)
        assert list(output.outputs[0].token_ids) == expected[own][0]
    assert len({tuple(tokens) for tokens, _ in expected.values()}) > 1  # the budget shows in the answers


def test_without_a_budget_the_engine_is_vllms_own(engine: Any, cases: dict[str, Case]) -> None:
    case, requests = cases["llava_next"], unpruned_requests(cases["llava_next"])
    command = [sys.executable, "-m", "tests.vllm.stock", case.name, str(case.folder)]
    printed = subprocess.run(
        command, env={**os.environ, "VLLM_PLUGINS": ""}, capture_output=True, text=True, check=True
    )
    module, expected = json.loads(printed.stdout.splitlines()[-1])
    assert module == "vllm.model_executor.models.llava_next"
    for hired in (None, {"budget": 1.0}):
        llm = engine(case, hired)
        assert (model_of(llm).pruned is None) == (hired is None)
        outputs = llm.generate(requests, greedy(), use_tqdm=False)
        assert [[each.prompt_token_ids, list(each.outputs[0].token_ids)] for each in outputs] == expected


def test_inside_the_model(engine: Any, cases: dict[str, Case]) -> None:
    """Micro-batches, the count of embeddings, and pictures that came another way: called as the worker calls it."""
    case = cases["llava_next"]
    llm = engine(case, {"budget": 0.2}, max_num_batched_tokens=256)
    model = model_of(llm)
    pictures = noisy([(64, 64), (20, 20), (90, 31), (64, 63), (20, 21), (31, 90)] * 4)
    batch = worker_inputs(llm, case, pictures)
    largest = model.pruned.geometry.largest
    assert model.pruned.cells == (256 // largest.tokens_full) * 7 * largest.cells_per_partition
    assert (256 // largest.tokens_full, largest.partitions) == (2, 7)

    seen = []
    handle = model.vision_tower.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[0]))
    with torch.inference_mode():
        together = model.embed_multimodal(**batch)
    handle.remove()
    layouts = [model.pruned.geometry.layout(*picture.size) for picture in pictures]
    assert max(seen) <= 2 * 7
    assert sum(seen) == sum(layout.partitions for layout in layouts)  # padding of the batch is not encoded
    assert len(seen) < len(pictures)
    with torch.inference_mode():
        alone = [model.embed_multimodal(**worker_inputs(llm, case, [picture]))[0] for picture in pictures]
    assert [each.shape for each in together] == [each.shape for each in alone]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

    # A method that keeps one token too many: vLLM would use the first ones and say nothing.
    select = type(model.pruned.method).select
    model.pruned.method = SimpleNamespace(
        reads=HiRED.reads, select=lambda image: select(HiRED(), replace(image, total=image.total + 1))
    )
    with torch.inference_mode(), pytest.raises(EngineError, match="placeholders"):
        model.embed_multimodal(**worker_inputs(llm, case, pictures[:1]))
    batch.pop("hired_image")
    with pytest.raises(InputsError, match="did not go through"):
        model.embed_multimodal(**batch)
    # A layer whose attention does not pass our hook, as when it is captured in a graph.
    layer = torch.nn.Module()
    layer.self_attn = torch.nn.Module()
    layer.self_attn.attn = torch.nn.Identity()
    first, layers = model.pruned.encoder.first, list(model.pruned.encoder.layers)
    layers[first] = layer
    model.pruned.encoder = replace(model.pruned.encoder, layers=layers)
    with torch.inference_mode(), pytest.raises(EngineError, match="read 0 times"):
        model.embed_multimodal(**worker_inputs(llm, case, pictures[:1]))


def worker_inputs(llm: Any, case: Case, pictures: list[Any]) -> dict[str, Any]:
    """What the worker hands to `embed_multimodal` for these pictures."""
    processor = MULTIMODAL_REGISTRY.create_processor(llm.llm_engine.model_config)
    items = processor.info.parse_mm_data({"image": pictures}, validate=False)
    processed = processor(prompt(case, pictures, "b:"), items)
    pairs = [("image", item) for item in processed["mm_kwargs"]["image"]]
    batches = [kwargs for _, _, kwargs in group_and_batch_mm_kwargs(pairs)]
    assert len(batches) == 1
    return batches[0]
