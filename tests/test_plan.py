"""`hired plan`: what it says, against what really happens."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from benchmarks import plan_check
from transformers.modeling_outputs import BaseModelOutputWithPooling

import hired
from hired.caching import cache_of
from hired.cli import main
from hired.core.budget import Budget, EncoderBudget
from hired.costs.estimate import Estimator, Request
from hired.costs.flops import LLM
from hired.costs.memory import encode_bytes, kv_bytes, prefill_bytes, weight_bytes
from hired.costs.quants import stored_bytes
from hired.costs.randomly import random_model
from hired.costs.rates import by_hand, calibrate
from hired.costs.shapes import meta_model, shape_config
from hired.costs.tokens import image_layouts, narrowed
from hired.errors import BudgetError, HiredError, UnsupportedModelError
from tests.support.live import Live
from tests.support.models import CASES, shared
from tests.support.pictures import UNLIKE, inputs

COSTED = ("llava_next", "llava")
"""Families whose costs are known."""

each_family = pytest.mark.parametrize("name", COSTED)
BUDGETS = (1, 0.4, 0.2, 0.1, 7, 2, 5000)


@pytest.fixture
def estimator() -> Estimator:
    """The 7B shape on a machine given by hand."""
    config = shape_config("llava-next-7b")
    request = Request(((1344, 1344),), context=100, new_tokens=20, encoder_budget=EncoderBudget(1.5))
    return Estimator(config, request, by_hand(config, "float16", 1, 50, 400))


@pytest.fixture(scope="module")
def thin() -> Any:
    """A model with the 0.5B shape's layers, but few of them, and a small vocabulary."""
    config = shape_config("llava-next-0.5b")
    config.text_config.num_hidden_layers = config.vision_config.num_hidden_layers = 2
    config.text_config.layer_types = config.text_config.layer_types[:2]
    config.text_config.vocab_size, config.image_token_id, config.vision_feature_layer = 128, 0, 2
    return random_model(config, torch.device("cpu"), torch.float32)


@each_family
def test_tokens_are_those_of_reduce(name):
    model, rows = shared(name), [[size, (33, 95)] for size in UNLIKE]
    for row in rows:
        given = inputs(name, [row])
        text = given["input_ids"].shape[1] - int((given["input_ids"] == model.config.image_token_id).sum())
        planned = Estimator(model.config, Request(tuple(row), context=text, new_tokens=1, dtype="float32"))
        for budget in BUDGETS:
            reduced = hired.reduce(model, given, budget=budget)
            costs = planned.at(budget)
            assert costs.tokens == sum(entry.tokens_kept for entry in reduced.selection)
            assert costs.prompt_tokens == reduced["input_ids"].shape[1]


@pytest.mark.parametrize("name", [name for name in CASES if name not in COSTED])
def test_a_family_whose_costs_are_not_known_is_refused(name):
    with pytest.raises(UnsupportedModelError):
        Estimator(shared(name).config, Request(((40, 30),))).at(1)


@each_family
def test_a_budget_that_leaves_no_token_is_an_error(name):
    with pytest.raises(BudgetError):
        Estimator(shared(name).config, Request(((20, 20),))).at(0.001)


@each_family
def test_weights_are_those_of_a_built_model(name):
    model = shared(name)
    stored = list(model.parameters()) + list(model.buffers())
    assert weight_bytes(meta_model(model.config), "float32") == sum(tensor.nbytes for tensor in stored)


def test_tied_weights_count_once_and_int4_packs_the_llms_layers_only():
    half_b, seven_b = shape_config("llava-next-0.5b"), shape_config("llava-next-7b")
    tied, untied = meta_model(half_b), meta_model(seven_b)
    buffers = weight_bytes(tied, "bfloat16") - 2 * 799_263_232
    assert 0 <= buffers < 10_000  # position ids and rotary frequencies
    linear = LLM.of(seven_b).layers * LLM.of(seven_b).layer_weights
    saved = weight_bytes(untied, "float16") - weight_bytes(untied, "int4")
    assert saved == linear * 2 - linear // 2 - linear // 64 * 4


@pytest.mark.parametrize(
    ("type", "size"),
    [
        ("q3_k_m", 3.30),
        ("q4_0", 3.83),
        ("q4_k_s", 3.86),
        ("q4_k_m", 4.08),
        ("q5_k_s", 4.65),
        ("q5_k_m", 4.78),
        ("q6_k", 5.53),
        ("q8_0", 7.16),
        ("f16", 13.48),
    ],
)
def test_files_are_as_large_as_those_that_people_download(type, size):
    """GB of GGUF files of Llama-2-7B as published, whose vocabulary is 64 tokens smaller."""
    found = stored_bytes(shape_config("llava-next-7b"), type) / 1e9
    assert found == pytest.approx(size, rel=0.005)


def test_the_tower_and_the_file_are_the_weights(estimator):
    config, request = estimator.config, replace(estimator.request, dtype="bfloat16", gguf="q4_k_m")
    planned = Estimator(config, request)
    whole = meta_model(config)
    linear = sum(p.numel() for part in (whole.model.language_model, whole.lm_head) for p in part.parameters())
    tower = weight_bytes(whole, "bfloat16") - 2 * linear
    assert planned.weights_bytes == tower + stored_bytes(config, "q4_k_m")


def test_llama_cpps_cache_follows_the_reduced_prompt_in_steps(estimator):
    planned = Estimator(estimator.config, replace(estimator.request, gguf="q4_0", context=32, new_tokens=15))
    token = 2 * 32 * 4096 * 2  # keys and values, layers, width, float16
    found = {budget: planned.at(budget).kv_bytes for budget in (1, 0.2, 0.1)}
    assert found == {1: 3072 * token, 0.2: 768 * token, 0.1: 512 * token}


def test_decoding_reads_the_quantised_weights(estimator):
    config = estimator.config
    half, four = (by_hand(config, "float16", 1, 50, 400, gguf) for gguf in (None, "q4_0"))
    assert four.step_s / half.step_s == pytest.approx(4.5 / 16, rel=1e-3)
    fast, slow = (
        Estimator(config, replace(estimator.request, gguf=gguf), rates).at(0.2)
        for gguf, rates in (("q4_0", four), (None, half))
    )
    assert fast.tokens_per_s > slow.tokens_per_s
    assert fast.flops == slow.flops


@each_family
def test_the_kv_cache_is_what_generate_fills(name):
    model, given = shared(name), inputs(name, [[(64, 64)]])
    reduced = hired.reduce(model, given, budget=0.4)
    cache = cache_of(
        model.generate(**reduced, min_new_tokens=5, max_new_tokens=5, do_sample=False, return_dict_in_generate=True)
    )
    cached = reduced["input_ids"].shape[1] + 4  # the last new token is never fed back
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kv_bytes(model.config, "float32", cached) == real


def test_prefill_memory_is_that_of_the_tensors_alive(thin):
    config, length, visual = thin.config, 300, 200
    ids = torch.ones(1, length, dtype=torch.int64)
    ids[0, 50 : 50 + visual] = config.image_token_id
    with torch.inference_mode(), Live() as live:
        features = [torch.zeros(visual, config.text_config.hidden_size)]
        thin(
            input_ids=ids,
            mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=features)},
            logits_to_keep=1,
        )
    predicted = prefill_bytes(config, "float32", length, visual) + kv_bytes(config, "float32", length)
    assert live.peak == pytest.approx(predicted, rel=0.05)


def test_encoder_memory_is_that_of_the_tensors_alive(thin):
    with torch.inference_mode(), Live() as live:
        thin.model.vision_tower(torch.zeros(3, 3, 336, 336))
    assert live.peak == pytest.approx(encode_bytes(thin.config, "float32", 3), rel=0.05)


def test_nothing_of_the_models_size_is_made(estimator):
    estimator.at(0.2)
    assert all(tensor.is_meta for tensor in (*estimator._model.parameters(), *estimator._model.buffers()))


def test_costs_grow_with_the_budget(estimator):
    names = ("tokens", "kv_bytes", "memory_bytes", "flops", "ttft_s")
    rows = [estimator.at(tokens) for tokens in (*range(2, 2928, 77), 2880, 2927)] + [estimator.at(1)]
    for low, high in pairwise(rows):
        assert all(getattr(low, name) <= getattr(high, name) for name in names)
        assert low.tokens < high.tokens or low.tokens == 2880
        assert low.tokens_per_s >= high.tokens_per_s


def test_the_largest_budget_fits_and_one_token_more_does_not(estimator):
    for share in (0.05, 0.33, 0.9):
        goal = estimator.at(share)
        limits = (
            estimator.fits_memory(goal.memory_bytes),
            lambda costs, goal=goal: costs.ttft_s <= goal.ttft_s,
        )
        for fits in limits:
            found = estimator.largest(fits)
            assert found.budget >= goal.tokens
            assert fits(found)
            assert not fits(estimator.at(found.budget + 1))


def test_everything_fits_or_nothing_does(estimator):
    whole = estimator.at(1)
    assert estimator.largest(estimator.fits_memory(whole.memory_bytes)).budget == 1
    assert estimator.largest(estimator.fits_memory(whole.weights_bytes)) is None


def test_a_gpus_context_counts_where_a_budget_is_looked_for():
    config = shape_config("llava-1.5-7b")
    on_gpu = Estimator(config, Request(((640, 480),), device="cuda"))
    limit = on_gpu.at(1).memory_bytes
    assert on_gpu.beside_bytes > 0
    assert not on_gpu.fits_memory(limit)(on_gpu.at(1))
    assert on_gpu.fits_memory(limit + on_gpu.beside_bytes)(on_gpu.at(1))


def test_a_narrowed_encoder_goes_on_with_its_ratio_of_the_budget():
    layout = image_layouts(meta_model(shape_config("llava-next-7b")), [(1344, 1344)])[0]
    kept = narrowed(layout, Budget.parse(0.2), EncoderBudget(1.5))
    assert kept == [432, 108, 108, 108, 108]  # 1.5 x 288 and 1.5 x 72
    assert narrowed(layout, Budget.parse(0.9), EncoderBudget(1.5)) == [576] * 5
    assert narrowed(layout, Budget.parse(1), EncoderBudget(1.5)) == [576] * 5


def test_rates_are_measured_on_the_models_own_layers(thin):
    """A few layers at the device's real speed: everything is above 0, and times follow."""
    rates = calibrate(thin.config, "float32", "cpu", length=64, seconds=0.05)
    assert all(value > 0 for value in (rates.encoder, rates.llm, rates.attention, rates.bandwidth, rates.step_s))
    assert rates.key_s >= 0
    costs = Estimator(thin.config, Request(((336, 336),), dtype="float32"), rates).at(0.2)
    assert costs.ttft_s > costs.encoder_flops / rates.encoder
    with pytest.raises(HiredError, match="int4"):
        calibrate(thin.config, "int4", "cpu")


def plan(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    code = main(["plan", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_prints_json(capsys, tmp_path):
    path = tmp_path / "plan.json"
    given = ("--budgets", "1,0.2,576", "--memory", "17GB", "--device", "cpu", "--dtype", "bf16", "--json", "-o", path)
    code, out, err = plan(capsys, "llava-next-7b", *given)
    assert code == 0
    assert err.startswith("hired: warning: 5,232 tokens, but the LLM was made for 4,096 positions")
    assert err.count("\n") == 1
    result = json.loads(out)
    assert result == json.loads(path.read_text())
    assert [row["tokens"] for row in result["results"]] == [2928, 576, 576]
    assert result["request"]["dtype"] == "bfloat16"
    found = result["fits"]["memory"]
    assert found["costs"]["memory_bytes"] <= found["limit_bytes"] == 17e9


def test_the_command_prints_a_table_and_what_it_means(capsys):
    given = ("--dtype", "int4", "--device", "cuda", "--memory", "8GB", "--ttft", "500ms", "--context", 2000)
    code, out, err = plan(capsys, "llava-next-7b", *given, "--tflops", 100, "--bandwidth", 600)
    assert code == 0
    for words in (
        "Weights 4.8",
        "Largest budget within 8.00 GB",
        "Largest budget within 0.5 s",
        "NF4",
        "first token, s",
    ):
        assert words in out
    assert "4,096 positions" in err
    assert "positions" not in plan(capsys, "llava-next-7b", "--budgets", "0.2", "--context", 1000)[2]


def test_the_command_plans_for_llama_cpp(capsys):
    given = ("--dtype", "Q4_K_M", "--memory", "6GB", "--context", 32, "--new-tokens", 15)
    code, out, err = plan(capsys, "llava-next-7b", *given)
    assert (code, err) == (0, "")
    assert out.startswith("llava-next-7b, q4_k_m (encoder bfloat16) on cpu:")
    assert "Largest budget within 6.00 GB" in out
    result = json.loads(plan(capsys, "llava-next-7b", *given, "--json")[1])
    assert (result["request"]["gguf"], result["request"]["dtype"]) == ("q4_k_m", "bfloat16")
    assert result["fits"]["memory"]["costs"]["memory_bytes"] <= 6e9


def test_the_command_measures_this_machine_when_asked(capsys):
    given = ("--calibrate", "--ttft", "60min", "--budgets", "0.2", "--context", 20, "--device", "cpu", "--json")
    code, out, _ = plan(capsys, "tiny", *given)
    result = json.loads(out)
    assert code == 0
    assert result["rates"]["source"] == "measured"
    assert result["machine"]["dtype"] == "float32"
    assert result["results"][0]["ttft_s"] > 0
    assert result["fits"]["ttft"]["costs"]["budget"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ttft", "2s"], "--calibrate"),
        (["--tflops", 3], "--bandwidth"),
        (["--tflops", 0, "--bandwidth", 4], "above 0"),
        (["--calibrate", "--tflops", 3, "--bandwidth", 4], "leave one out"),
        (["--memory", "8XB"], "8GB"),
        (["--memory", "0GB"], "8GB"),
        (["--ttft", "soon", "--calibrate"], "500ms"),
        (["--dtype", "int3"], "int4"),
        (["--dtype", "int3"], "q4_k_m"),
        (["--dtype", "int4", "--calibrate"], "int4"),
        (["--dtype", "q4_k_m", "--calibrate"], "--gguf-type"),
        (["--dtype", "q4_k_m", "--device", "cuda"], "--device cpu"),
        (["--dtype", "q8_0", "--batch", 2], "one prompt at a time"),
        (["--device", "mps"], "cuda"),
        (["--image", "0x3"], "WIDTHxHEIGHT"),
        (["--budgets", "0"], "budget"),
        (["--budgets", ""], "budgets"),
        (["--encoder-budget", 0.5], "at least 1"),
        (["--context", 0], "--context"),
        (["-o", "plan.txt"], ".json"),
    ],
)
def test_bad_options_are_one_clear_error(capsys, arguments, words):
    code, out, err = plan(capsys, "llava-1.5-7b", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_no_layer_takes_less_than_one_with_next_to_nothing_to_do():
    """On a fast GPU starting the kernels is what takes time, whatever the budget."""
    config = shape_config("llava-next-0.5b")
    fast = replace(by_hand(config, "float16", 1, 1e9, 1e9), encoder_s=0.001, step_s=0.002)
    request = Request(((1344, 1344),), context=32, new_tokens=15, device="cuda")
    for budget in (1, 0.1):
        costs = Estimator(config, request, fast).at(budget)
        assert costs.ttft_s == pytest.approx(23 * 0.001 + 24 * 0.002, rel=1e-3)
        assert Estimator(config, request, replace(fast, encoder_s=0.0, step_s=0.0)).at(budget).ttft_s < 1e-3


def test_the_comparison_with_bench_finds_what_is_too_far_off(monkeypatch, tmp_path):
    """Result files made of the predictions themselves, one row of them bent."""
    config = shape_config("llava-next-7b")
    rates = by_hand(config, "float16", 1, 50, 400)
    costs = Estimator(config, Request(((672, 672),), context=32, new_tokens=15, device="cuda"), rates).at(0.2)
    row = {"budget": 0.2, "encoder_budget": None, "image": [672, 672], "batch": 1, "status": "ok"}
    row |= {"tokens": costs.tokens, "prompt_tokens": costs.prompt_tokens, "tokens_per_s": costs.tokens_per_s}
    row |= {"ttft_s": costs.ttft_s * 0.9, "peak_memory_mb": costs.memory_bytes / 1e6 * 1.05}
    speed = {"subject": "llava-next-7b", "settings": {"new_tokens": 15}, "results": [row, {**row, "status": "oom"}]}
    speed["machine"] = {"device": "a GPU", "dtype": "float16"}
    plan = {"rates": rates.as_dict(), "request": {"batch": 1}}
    lines, far = plan_check.table("speed-x.json", speed, plan)
    assert far == []
    assert len(lines) == 3
    assert "+11%" in lines[2]
    row |= {"ttft_s": costs.ttft_s / 2, "peak_memory_mb": costs.memory_bytes / 2e6, "tokens": 1}
    row["prompt_tokens"] = 33
    _, far = plan_check.table("speed-x.json", speed, plan)
    assert len(far) == 3

    page = tmp_path / "plan.md"
    page.write_text(f"before\n{plan_check.START}\nold\n{plan_check.END}\nafter\n")
    monkeypatch.setattr(plan_check, "PAGE", page)
    monkeypatch.setattr(plan_check, "HERE", tmp_path)
    assert plan_check.main() == 1  # nothing to compare
    (tmp_path / "speed-x.json").write_text(json.dumps({**speed, "results": []}))
    assert plan_check.main() == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
