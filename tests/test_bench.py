"""`hired bench` on tiny models: what is measured, in which order, and what its rows say. No test looks at a clock."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.speed_table import PAGE, page, results, table
from transformers import AutoModelForImageTextToText

import hired
from hired.bench import Arm, Settings
from hired.bench import memory as memory_module
from hired.bench import run as run_module
from hired.bench.measure import Job, Sample, interleave, is_out_of_memory, run_arm
from hired.bench.memory import fresh
from hired.bench.plot import plot
from hired.bench.run import bench
from hired.bench.settings import Scene, parse_counts, parse_sizes
from hired.bench.subject import Subject, inputs_for, load, pictures
from hired.cli import main
from hired.costs.flops import encoder_flops, prefill_flops, projector_flops, used_layers
from hired.costs.randomly import random_model
from hired.costs.shapes import SHAPES, shape_config
from hired.errors import BudgetError, HiredError, ModelLoadError
from tests.support.models import CASES

SMALL = {"shape": "tiny", "images": ((192, 192),), "new_tokens": 3, "text_tokens": 6, "repeats": 1, "memory": False}


@pytest.fixture(scope="module")
def tiny() -> Subject:
    return load(Settings(shape="tiny"))


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """Two batches, all kinds of arms."""
    settings = {**SMALL, "repeats": 2, "budgets": (1, 0.4, 0.2, 50), "encoder_budget": 1.5, "batches": (1, 2)}
    return bench(Settings(**settings))


@pytest.fixture
def out_of_memory(monkeypatch: pytest.MonkeyPatch, tiny: Subject) -> Iterator[Callable[[int], None]]:
    """The tiny shape, whose LLM runs out of memory on prompts longer than the limit that the test sets."""
    limit = 10**9

    def refuse(module: Any, args: Any, kwargs: Any) -> None:
        if kwargs["inputs_embeds"].shape[1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    def set_limit(tokens: int) -> None:
        nonlocal limit
        limit = tokens

    handle = tiny.model.model.language_model.register_forward_pre_hook(refuse, with_kwargs=True)
    monkeypatch.setattr(run_module, "load", lambda settings: tiny)
    yield set_limit
    handle.remove()


def row_of(result: dict[str, Any], budget: float, encoder_budget: float | None = None, batch: int = 1) -> Any:
    (row,) = [
        row
        for row in result["results"]
        if (row["budget"], row["encoder_budget"], row["batch"]) == (budget, encoder_budget, batch)
    ]
    return row


def test_a_shape_is_the_architecture_with_random_weights() -> None:
    config = shape_config("tiny")
    model = random_model(config, torch.device("cpu"), torch.bfloat16)
    built = AutoModelForImageTextToText.from_config(shape_config("tiny"))
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in built.named_parameters()}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert all(p.isfinite().all() for p in model.parameters())
    buffers = dict(model.named_buffers())
    assert buffers
    for name, buffer in built.named_buffers():  # rotary frequencies and positions are what the module computes
        torch.testing.assert_close(buffers[name], buffer, rtol=0, atol=0)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == (
        built.get_output_embeddings().weight is built.get_input_embeddings().weight
    )
    weight = model.model.language_model.layers[0].mlp.up_proj.weight
    assert len(torch.unique(weight, dim=0)) == len(weight)


def test_inputs_are_those_of_the_processor(tiny: Subject) -> None:
    """Placeholders fit the features, in every row, and the pictures differ."""
    inputs = inputs_for(tiny, pictures(Scene((192, 96), 2)), 6)
    placeholder = tiny.model.config.image_token_id
    counts = (inputs["input_ids"] == placeholder).sum(1).tolist()
    features = tiny.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output
    assert counts == [len(feature) for feature in features]
    assert inputs["input_ids"].shape[1] == counts[0] + 6
    assert not torch.equal(inputs["pixel_values"][0], inputs["pixel_values"][1])


@pytest.mark.parametrize("batch", [1, 2])
def test_rows_hold_every_arm_and_what_was_kept(result: dict[str, Any], tiny: Subject, batch: int) -> None:
    inputs = inputs_for(tiny, pictures(Scene((192, 192), batch)), 6)
    full = row_of(result, 1.0, None, batch)
    assert full["prompt_tokens"] == inputs["input_ids"].shape[1] == full["tokens"] + 6
    for budget in (0.4, 0.2, 50):
        for encoder_budget in (None, 1.5):
            row = row_of(result, budget, encoder_budget, batch)
            reduced = hired.reduce(tiny.model, inputs, budget, encoder_budget=encoder_budget)
            assert [image.tokens_kept for image in reduced.selection] == [row["tokens"]] * batch
            assert row["prompt_tokens"] == reduced["input_ids"].shape[1] == row["tokens"] + 6
    assert len(result["results"]) == 2 * (1 + 3 * 2)
    assert result["random_weights"]
    assert "random" in result["note"]
    assert result["machine"]["cpu"]
    assert result["settings"]["repeats"] == 2


def test_rows_add_up(result: dict[str, Any]) -> None:
    stages = {"encode_s", "select_s", "prefill_s", "decode_s", "ttft_s", "tokens_per_s", "preprocess_s"}
    for row in result["results"]:
        assert row["status"] == "ok"
        assert set(row["range"]) == stages
        # The untouched model's prefill is a difference of two runs, which noise can make anything.
        for name in stages - ({"select_s", "prefill_s"} if row["budget"] == 1 else {"select_s"}):
            low, high = row["range"][name]
            assert 0 < low <= row[name] <= high
        full = row_of(result, 1.0, None, row["batch"])
        assert row["speedup"] == pytest.approx(full["ttft_s"] / row["ttft_s"], rel=1e-2)
        assert row["allowed_speedup"] == pytest.approx(full["ttft_s"] / row["allowed_ttft_s"], rel=1e-2)
        assert row["speedup_of_allowed"] == pytest.approx(row["speedup"] / row["allowed_speedup"], rel=1e-2)
    full = row_of(result, 1.0)
    assert (full["speedup"], full["allowed_speedup"], full["flops_speedup"]) == (1.0, 1.0, 1.0)
    # Arms with and without an encoder budget keep the same number of tokens, so the same is allowed.
    assert row_of(result, 0.2)["allowed_ttft_s"] == row_of(result, 0.2, 1.5)["allowed_ttft_s"]


def test_one_run_is_timed_stage_by_stage(tiny: Subject) -> None:
    inputs = inputs_for(tiny, pictures(Scene((192, 192), 1)), 6)
    sample = run_arm(tiny, inputs, Arm(0.2), 3)
    assert None not in (sample.encode, sample.select, sample.prefill, sample.decode)
    parts = (sample.encode or 0) + (sample.select or 0) + (sample.prefill or 0)
    assert 0 < parts <= sample.ttft < sample.total == sample.ttft + (sample.decode or 0)


def test_flops_are_the_analytic_count(result: dict[str, Any]) -> None:
    config = shape_config("tiny")
    full, row = row_of(result, 1.0), row_of(result, 0.2)
    partitions, cells = 5, 144
    whole = encoder_flops(config, partitions) + projector_flops(config, partitions * cells)
    whole += prefill_flops(config, full["prompt_tokens"])
    reduced = encoder_flops(config, partitions, used_layers(config)) + projector_flops(config, row["tokens"])
    reduced += prefill_flops(config, row["prompt_tokens"])
    assert row["flops_speedup"] == pytest.approx(whole / reduced, abs=1e-4)
    assert row_of(result, 0.2, 1.5)["flops_speedup"] > row["flops_speedup"]


def test_arms_take_turns_and_each_turn_starts_one_later() -> None:
    log: list[str] = []
    todo = [Job(name, lambda name=name: log.append(name) or Sample(ttft=float(len(log)))) for name in "abc"]  # type: ignore[misc]
    samples = interleave(todo, repeats=3, warmup=1)
    turns = ["".join(log[i : i + 3]) for i in range(0, 12, 3)]
    assert turns == ["cab", "abc", "bca", "cab"]
    assert [sample.ttft for sample in samples[0] or []] == [4.0, 9.0, 11.0]  # not the warm-up's


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_out_of_memory_ends_one_job_only(error: Exception) -> None:
    tries = 0

    def fails() -> Sample:
        nonlocal tries
        tries += 1
        raise error

    samples = interleave([Job("arm", fails), Job("arm", lambda: Sample(1.0))], repeats=2, warmup=1)
    assert samples == {0: None, 1: [Sample(1.0)] * 2}
    assert tries == 1


def test_other_errors_are_not_taken_for_it() -> None:
    assert not is_out_of_memory(RuntimeError("The size of tensor a must match"))
    with pytest.raises(RuntimeError, match="must match"):
        interleave([Job("arm", lambda: torch.ones(2) + torch.ones(3))], 1, 0)  # type: ignore[arg-type,return-value]


def test_out_of_memory_is_a_row(out_of_memory: Callable[[int], None], tmp_path: Path) -> None:
    """The untouched model does not fit, the reduced one does, as on the paper's P40 at batch 4."""
    out_of_memory(400)
    found = bench(Settings(**{**SMALL, "budgets": (1, 0.2)}))
    full, row = found["results"]
    assert full["status"] == "out of memory"
    assert full["tokens"] > 400
    assert (full["ttft_s"], full["tokens_per_s"], full["speedup"]) == (None, None, None)
    assert row["status"] == "ok"
    assert row["ttft_s"] > 0
    assert (row["speedup"], row["allowed_speedup"]) == (None, None)
    assert row["speedup_of_allowed"] > 0  # needs no full arm
    json.dumps(found)
    plot(found["results"], tmp_path / "p.png", "")
    assert (tmp_path / "p.png").stat().st_size > 10_000
    with pytest.raises(HiredError, match="ran out of memory"):
        plot([full], tmp_path / "q.png", "")


def _ends(monkeypatch: pytest.MonkeyPatch, code: int, out: str, err: str = "") -> None:
    monkeypatch.setattr(memory_module, "_answer", lambda order: (code, out, err))


def test_a_killed_process_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    arm, scene = Arm(0.2), Scene((192, 192), 1)
    for code, out in ((-9, "loaded\n"), (0, "loaded\nout of memory\n")):
        _ends(monkeypatch, code, out)
        assert fresh(Settings(), scene, arm, 1) is None
    _ends(monkeypatch, -9, "")
    with pytest.raises(HiredError, match=r"llava-next-0\.5b does not fit into memory"):
        fresh(Settings(), scene, arm, 1)
    _ends(monkeypatch, 1, "loaded\n", "Traceback\nValueError: nonsense\n\n")
    with pytest.raises(HiredError, match="ValueError: nonsense"):
        fresh(Settings(), scene, arm, 1)


def test_an_arm_whose_process_was_killed_does_not_run_here(
    monkeypatch: pytest.MonkeyPatch, out_of_memory: Callable[[int], None]
) -> None:
    monkeypatch.setattr(run_module, "fresh", lambda settings, scene, arm, threads: None)
    found = bench(Settings(**{**SMALL, "budgets": (1, 0.2), "memory": True}))
    assert [row["status"] for row in found["results"]] == ["out of memory"] * 2


def test_command_line_measures_memory_and_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """End to end: fresh processes, files, JSON on the last line; the KV cache shrinks exactly with the prompt."""
    arguments = ["bench", "--shape", "tiny", "--image", "192x192", "--budgets", "0.2", "--new-tokens", "4"]
    arguments += ["--repeats", "1", "--warmup", "0", "--json", "-o", f"{tmp_path}/a.json", "-o", f"{tmp_path}/a.png"]
    assert main(arguments) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == json.loads((tmp_path / "a.json").read_text())
    assert {"torch", "transformers", "hired", "python"} <= set(printed["versions"])
    assert (tmp_path / "a.png").stat().st_size > 10_000
    full, row = printed["results"]
    text = shape_config("tiny").text_config
    heads = getattr(text, "num_key_value_heads", text.num_attention_heads)
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    token = 2 * text.num_hidden_layers * heads * width * 4  # keys and values, float32
    assert full["kv_cache_bytes"] == full["prompt_tokens"] * token
    assert row["kv_cache_bytes"] == row["prompt_tokens"] * token
    for found in (full, row):
        assert found["peak_memory_mb"] >= found["loaded_memory_mb"] > 100


def test_a_checkpoint_can_be_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES["llava"]
    case.model().save_pretrained(tmp_path / "m")
    case.processor("left").save_pretrained(tmp_path / "m")
    arguments = ["--image", "32x32,64x64", "--budgets", "0.5", "--repeats", "1", "--no-memory"]
    assert main(["bench", "--model", str(tmp_path / "m"), *arguments, "-o", str(tmp_path / "sizes.svg")]) == 0
    out = capsys.readouterr().out
    assert "64x64" in out
    assert "50 %" in out
    assert "random" not in out
    assert "million pixels" in (tmp_path / "sizes.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shape", "nonsense"], "no shape 'nonsense': use one of llava-next-7b"),
        (["--shape", "tiny", "--model", "tiny"], "two things"),
        (["--budgets", "1.5,0"], "budget"),
        (["--budgets", "many"], "budget"),
        (["--budgets", ","], "no budgets"),
        (["--encoder-budget", "0.5"], "encoder_budget"),
        (["--image", "1344"], "WIDTHxHEIGHT"),
        (["--image", "0x10"], "WIDTHxHEIGHT"),
        (["--image", ""], "no picture size"),
        (["--batch", "two"], "whole numbers"),
        (["--batch", "0"], "1 to 10,000 rows"),
        (["--new-tokens", "1"], "use 2 to"),
        (["--text-tokens", "1"], "use 2 to"),
        (["--repeats", "0"], "use 1 to"),
        (["--warmup", "-1"], "use 0 to"),
        (["--dtype", "int3"], "unknown dtype"),
        (["--gguf-type", "q4_9"], "unknown GGUF type 'q4_9': use one of f32"),
        (["--gguf-type", "q4_0", "--gguf", "x.gguf"], "two files"),
        (["--gguf-type", "q4_0", "--model", "tiny"], "--gguf file"),
        (["--gguf-type", "q4_0", "--batch", "1,2"], "one prompt at a time"),
        (["--gguf", "x.gguf", "--device", "cuda"], "--device cuda"),
        (["--busy"], "--gguf-type"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["-o", "x.txt"], "name a .json file"),
        (["-o", "/no/such/place/x.json"], "there is no directory"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fresh", "load"):
        monkeypatch.setattr(run_module, name, lambda *_, name=name: pytest.fail(f"{name} was called"))
    assert main(["bench", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["bench", "--gguf-type", "q4_0"], ["bench", "--gguf", "x.gguf"], ["ask", "page.png", "?", "--gguf", "x"]],
)
def test_llama_cpp_is_missed_before_anything_runs(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.chdir(tmp_path)
    pictures(Scene((20, 20), 1))[0].save("page.png")
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert "gguf extra" in err
    assert err.count("\n") == 1


def test_settings() -> None:
    assert parse_sizes("1344x1344, 336X672") == ((1344, 1344), (336, 672))
    assert parse_counts("1,2") == (1, 2)
    assert Settings(budgets=(0.2, 1, 0.2), encoder_budget=1.5).arms() == [Arm(1.0), Arm(0.2), Arm(0.2, 1.5)]
    assert [Arm(1.0).name, Arm(0.2, 1.5).name, Arm(576).name] == ["100 %", "20 %, encoder x 1.5", "576 tokens"]
    assert Settings().subject in SHAPES
    with pytest.raises(BudgetError):
        Settings(budgets=(-1,)).check()
    with pytest.raises(ModelLoadError, match="device"):
        load(Settings(shape="tiny", device="nonsense"))


def test_tables_hold_every_row(result: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "speed-tiny.json"
    path.write_text(json.dumps({**result, "versions": {"hired": "0"}}))
    made = page([path])
    for row in result["results"]:
        assert f"| {row['ttft_s']:.3f} |" in made
    assert "| 20%, encoder x 1.5 |" in made
    assert f"| {row_of(result, 0.2)['tokens_per_s']:,.2f} |" in table([path])


def test_the_page_of_committed_results_is_up_to_date() -> None:
    assert PAGE.exists() == bool(results())
    assert not results() or PAGE.read_text() == page()
