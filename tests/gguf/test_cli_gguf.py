"""`hired ask --gguf`, `hired bench --gguf` and what `hired plan` says of GGUF types, against llama.cpp itself."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: make test-gguf")

from benchmarks import gguf_speed, plan_check
from benchmarks.speed_table import page as speed_page

from hired import forms, gguf
from hired.bench import llama, quiet
from hired.bench.random_gguf import write_random
from hired.bench.run import bench
from hired.bench.settings import Settings
from hired.bench.subject import inputs_for, load, pictures
from hired.cli import main
from hired.costs.memory import context_bytes
from hired.costs.quants import BLOCKS, TYPES, stored, stored_bytes
from hired.costs.shapes import shape_config
from hired.errors import HiredError, ModelLoadError
from hired.gguf.header import read_header

SMALL = ["--image", "192x192", "--new-tokens", "3", "--text-tokens", "6", "--repeats", "1", "--budgets", "0.2"]
QUESTION = "What is TOTAL?"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model's LLM as a file, and two pages."""
    path = tmp_path_factory.mktemp("cli")
    assert main(["gguf", "export", "tiny", str(path / "tiny.gguf"), "--type", "f32"]) == 0
    for place, seed in enumerate(forms.DEMO_SEEDS[:2]):
        forms.page(seed).image.save(path / f"{place}.png")
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; its exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(each) for each in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def kinds(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape, as torch has it, and type of every tensor of a file."""
    from gguf import GGMLQuantizationType

    found = read_header(path).tensors
    return {name: (each.shape[::-1], GGMLQuantizationType(each.type).name) for name, each in found.items()}


def test_blocks_are_those_of_gguf() -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    assert {name: GGML_QUANT_SIZES[GGMLQuantizationType[name]] for name in BLOCKS} == BLOCKS


def thin(layers: int, hidden: int, kv_heads: int) -> Any:
    """A small model whose mixtures show: several layers, rows that blocks of 256 fit or do not."""
    config = shape_config("llava-next-7b")
    text = config.text_config
    text.num_hidden_layers, text.hidden_size, text.intermediate_size, text.vocab_size = layers, hidden, 512, 64
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 8, kv_heads, hidden // 8
    return config


@pytest.mark.parametrize(("hidden", "kv_heads"), [(256, 8), (192, 2)])
@pytest.mark.parametrize("type", [name for name in TYPES if name not in ("f32", "f16", "bf16")])
def test_every_tensor_has_the_type_that_llama_cpp_gives_it(
    tmp_path: Path, type: str, hidden: int, kv_heads: int
) -> None:
    """17 layers: both ends, and every third between."""
    from hired.gguf.exporting.types import type_named
    from hired.gguf.llama import quantize

    config = thin(17, hidden, kv_heads)
    write_random(config, "f16", tmp_path / "f16.gguf")
    quantize(tmp_path / "f16.gguf", tmp_path / "made.gguf", type_named(type).code, 1)
    assert kinds(tmp_path / "made.gguf") == {each.name: (each.shape, each.type) for each in stored(config, type)}


@pytest.mark.parametrize("type", TYPES)
def test_random_files_run_and_are_as_large_as_planned(tmp_path: Path, type: str) -> None:
    import torch

    config, path = shape_config("tiny"), tmp_path / "made.gguf"
    write_random(config, type, path, "tiny")
    header = read_header(path)
    assert sum(each.bytes for each in header.tensors.values()) == stored_bytes(config, type)
    assert kinds(path) == {each.name: (each.shape, each.type) for each in stored(config, type)}
    subject = load(Settings(shape="tiny", gguf=str(path)))
    with subject.llm as llm:
        inputs = inputs_for(subject, pictures(Settings(images=((192, 192),)).scenes()[0]), 6)
        logits = llm.next_logits(gguf_reduced(subject.model, inputs))
    assert torch.isfinite(logits).all()
    assert logits.std() > 0


def gguf_reduced(model: Any, inputs: Any) -> Any:
    """Under a 20 % budget."""
    import hired

    return hired.reduce(model, inputs, 0.2)


def test_the_exporters_types_are_those_that_are_planned() -> None:
    from hired.gguf.exporting import TYPES as exported

    assert set(exported) == set(TYPES)


def test_answers_are_those_of_the_whole_model(folder: Path, run: Run) -> None:
    asked = ("ask", folder / "0.png", folder / "1.png", QUESTION, "--json")
    for more in ((), ("--budget", "1"), ("--system", "Be brief.") if takes_system() else ("--alpha", "0.3")):
        whole, file = (json.loads(run(*asked, *more, *which)[1]) for which in ((), ("--gguf", folder / "tiny.gguf")))
        assert file["gguf"] == str(folder / "tiny.gguf")
        assert file["versions"].keys() - whole["versions"].keys() == {"llama-cpp-python", "gguf"}
        for key in ("answer", "images", "prompt_tokens", "budget", "model"):
            assert file[key] == whole[key]
        assert file["timings_ms"].keys() == whole["timings_ms"].keys()


def takes_system() -> bool:
    """Whether the shipped model's template does."""
    import hired

    return "system" in hired.load_tiny()[1].chat_template


def test_the_answer_is_streamed_and_turns_go_on_from_the_cache(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    def talk(*which: object) -> list[str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("What is TAX?\n\nWhat is DATE?\n"))
        code, out, _ = run("ask", folder / "0.png", QUESTION, "--chat", *which)
        assert code == 0
        return out.splitlines()

    fed: list[int] = []
    feed = gguf.LLM._fed

    def watched(self: Any, prompt: Any, most: int) -> Any:
        before = self.held
        found = feed(self, prompt, most)
        fed.append(self.held - before)
        return found

    monkeypatch.setattr(gguf.LLM, "_fed", watched)
    file, whole = talk("--gguf", folder / "tiny.gguf"), talk()
    assert len(file) == len(whole) == 6
    assert file[::2] == whole[::2]
    assert [line.split(" | ")[0] for line in file[1::2]] == [line.split(" | ")[0] for line in whole[1::2]]
    assert fed[0] > 100 > max(fed[1:])  # what follows costs its own tokens


def test_both_answers_side_by_side(folder: Path, run: Run) -> None:
    asked = ("ask", folder / "0.png", QUESTION, "--compare", "--json")
    whole, file = (json.loads(run(*asked, *which)[1]) for which in ((), ("--gguf", folder / "tiny.gguf")))
    assert (file["answer"], file["untouched"]["answer"]) == (whole["answer"], whole["untouched"]["answer"])
    assert run("ask", folder / "0.png", QUESTION, "--gguf", folder / "tiny.gguf", "--method", "cdpruner")[0] == 0


def test_what_asks_in_vain_is_one_clear_error(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "cut.gguf").write_bytes((folder / "tiny.gguf").read_bytes()[:5000])
    write_random(thin(2, 256, 8), "q8_0", folder / "other.gguf")
    for more, words in (
        (("--gguf", folder / "none.gguf"), "none.gguf"),
        (("--gguf", folder / "0.png"), "no GGUF file"),
        (("--gguf", folder / "cut.gguf"), "cut off"),
        (("--gguf", folder / "other.gguf"), "not the language model of this checkpoint"),
        (("--gguf", folder / "tiny.gguf", "--load", "4bit"), "--load"),
    ):
        code, out, err = run("ask", folder / "0.png", QUESTION, *more)
        assert (code, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1
    monkeypatch.setitem(__import__("sys").modules, "llama_cpp", None)
    code, _, err = run("ask", folder / "0.png", QUESTION, "--gguf", folder / "tiny.gguf")
    assert code == 2
    assert "gguf extra" in err


def test_bench_measures_random_files_and_removes_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    out = tmp_path / "speed-x.json"
    given = ("--shape", "tiny", "--gguf-type", "q4_k_m", "--busy", "--warmup", 0, "--json", "-o", out)
    code, printed, _ = run("bench", *SMALL, *given)
    assert code == 0
    found = json.loads(printed)
    assert found == json.loads(out.read_text())
    assert list(tmp_path.iterdir()) == [out]
    assert found["settings"]["gguf"] is None
    assert found["random_weights"]
    assert {"llama-cpp-python", "gguf"} <= found["versions"].keys()
    assert found["others_cores"].keys() == {"before", "during"}
    config = shape_config("tiny")
    for row in found["results"]:
        assert row["status"] == "ok"
        assert row["peak_memory_mb"] >= row["loaded_memory_mb"] > 100
        assert row["kv_cache_bytes"] == context_bytes(config, row["prompt_tokens"] + 3)
        for name in ("ttft_s", "decode_s", "prefill_s", "encode_s"):
            assert row[name] > 0
    full, reduced = found["results"]
    assert (full["budget"], reduced["budget"]) == (1, 0.2)
    assert full["prompt_tokens"] > reduced["prompt_tokens"] == reduced["tokens"] + 6
    assert full["flops_speedup"] == 1
    assert reduced["flops_speedup"] > 1
    assert "q4_k_m" in speed_page([out])
    lines, _ = plan_check.table(out.name, found, None)
    assert len(lines) == 4


def test_bench_runs_a_file_beside_a_checkpoint(folder: Path, run: Run) -> None:
    file = folder / "tiny.gguf"
    code, out, _ = run("bench", *SMALL, "--model", "tiny", "--gguf", file, "--busy", "--no-memory")
    assert code == 0
    assert "tiny.gguf in llama.cpp, encoder float32" in out
    assert "random" not in out
    assert "Other programs used" in out


def test_every_run_is_computed_whole_and_to_the_last_token(folder: Path) -> None:
    """Neither the cache of the run before nor a token that ends answers makes one shorter."""
    subject = load(Settings(model="tiny", gguf=str(folder / "tiny.gguf")))
    inputs = inputs_for(subject, pictures(Settings(images=((192, 192),)).scenes()[0]), 6)
    reduced, told = gguf_reduced(subject.model, inputs), []
    generate = subject.llm.generate

    def watched(*args: Any, **kwargs: Any) -> Any:
        told.append(subject.llm.held)
        found = generate(*args, **kwargs)
        told.append(found.shape[1] - reduced["input_ids"].shape[1])
        return found

    subject.llm.generate = watched
    for _ in range(2):
        llama.generate(subject, reduced, 40)
    subject.llm.close()
    assert told == [0, 40, 0, 40]


def test_a_machine_that_is_not_quiet_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(shape="tiny", gguf_type="q4_0", memory=False)
    monkeypatch.setattr(quiet, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(quiet.Others, "cores", lambda self: 100.0)
    with pytest.raises(HiredError, match=r"other programs use 100\.0 of .* cores.*--busy"):
        bench(settings)
    assert quiet.check_quiet(1, busy=True) == 100.0
    monkeypatch.setattr(quiet.Others, "cores", lambda self: None)  # where the system does not tell
    assert quiet.check_quiet(1) is None


def test_no_room_for_random_weights_is_told_before_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1))
    with (
        pytest.raises(HiredError, match="TMPDIR"),
        llama.with_file(Settings(shape="tiny", gguf_type="q4_0"), print),
    ):
        pass


def test_a_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_random(thin(2, 256, 8), "q8_0", tmp_path / "other.gguf")
    with pytest.raises(ModelLoadError, match="not the language model"):
        load(Settings(shape="tiny", gguf=str(tmp_path / "other.gguf")))


def test_the_benchmark_writes_both_engines_and_tells_what_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On result files made up here: no test looks at a clock."""
    settings = Settings(shape="tiny", gguf_type="q4_0", images=((192, 192),), repeats=1, memory=False, busy=True)
    settings = replace(settings, budgets=(1, 0.2), new_tokens=3, text_tokens=6)
    found = json.loads(json.dumps(bench(settings)))
    found["versions"] = dict.fromkeys(("torch", "transformers", "llama-cpp-python"), "1")
    torch = {**found, "settings": {**found["settings"], "gguf_type": None}}
    monkeypatch.setattr(gguf_speed, "bench", lambda options: found if "--gguf-type" in options else torch)
    page = tmp_path / "gguf.md"
    page.write_text(f"before\n{gguf_speed.START}\nold\n{gguf_speed.END}\nafter\n")
    monkeypatch.setattr(gguf_speed, "PAGE", page)
    monkeypatch.setattr(gguf_speed, "HERE", tmp_path)
    monkeypatch.setattr(gguf_speed, "quiet", lambda found: False)
    assert gguf_speed.main(["--shape", "tiny", "--type", "q4_0"]) == 1
    assert "nothing is written" in capsys.readouterr().err
    monkeypatch.setattr(gguf_speed, "quiet", lambda found: True)
    assert gguf_speed.main(["--shape", "tiny", "--type", "q4_0"]) == 0
    text = page.read_text()
    assert "old" not in text
    assert text.count("| tiny | q4_0 |") == text.count("| tiny | float32, PyTorch |") == 2
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    row = {"speedup": 4.6, "flops_speedup": 4.7, "peak_memory_mb": 5400.0, "decode_s": 1.0, "budget": 0.2}
    good = {"subject": "x", "settings": {"gguf_type": "q4_0", "new_tokens": 3}, "results": [row]}
    good["torch"] = {**good, "results": [{**row, "decode_s": 2.1}]}
    assert gguf_speed.missed(good) == []
    row |= {"speedup": 4.4, "flops_speedup": 4.8, "peak_memory_mb": 5600.0, "decode_s": 2.0}
    assert len(gguf_speed.missed(good)) == 4


@pytest.mark.parametrize("name", ["llava_next", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("budget", [0.4, 1])
def test_a_further_turn_is_that_of_the_whole_model(name: str, budget: float, engine: Any) -> None:
    """Also where positions are a picture's rows and columns."""
    import torch

    import hired
    from hired.gguf.loaded import LoadedFile
    from hired.loading import Loaded
    from tests.gguf import support
    from tests.support import models, pictures

    model, processor = support.model(name), models.ALL[name].processor("left")
    llm = engine(name, tower=model)
    whole, file = Loaded(name, model, processor), LoadedFile(name, model, processor, llm)
    reduced = hired.reduce(model, pictures.inputs(name, [[models.ALL[name].sizes[0]]]), budget)
    asked = torch.tensor([[5, 7, 9]])
    said = []
    for loaded in (whole, file):
        with torch.inference_mode():
            ids, cache = loaded.turn(reduced, 4)
            first = ids.shape[1]
            ids, _ = loaded.turn(loaded.further(torch.cat((ids, asked), 1), cache), 4)
        said.append(ids[0].tolist())
    assert said[0] == said[1]
    assert len(said[0]) > first + 3
    assert llm.held >= first
