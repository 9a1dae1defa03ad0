"""What `hired serve` makes of its options, and what it refuses before a model is loaded."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import vllm
from safetensors.torch import load_file, save_file
from vllm.model_executor.models import ModelRegistry

from hired.cli.serve import show
from hired.errors import BudgetError, HiredError, ModelLoadError, UnsupportedModelError
from hired.serving.launch import prepare
from hired.tiny import WEIGHTS
from hired.vllm import PREFIX
from hired.vllm.checkpoints import export
from hired.vllm.starting import RUST

NAME = PREFIX + "LlavaNextForConditionalGeneration"


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What vLLM's own set-up of a command line leaves behind in this process."""
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", os.environ.get("VLLM_WORKER_MULTIPROC_METHOD", "spawn"))
    level = logging.getLogger("vllm").level
    yield
    logging.getLogger("vllm").setLevel(level)


def checkpoint(folder: Path, **changes: object) -> str:
    """A directory with the shipped model's configuration, changed, and nothing else."""
    config = json.loads((WEIGHTS / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return str(folder)


def test_the_budget_joins_the_users_own_options() -> None:
    own = {"text_config": {"rope_theta": 10000.0}, "extra": 1}
    words = ["tiny", "--hf-overrides", json.dumps(own), "--middleware", "a.B", "--max-num-seqs", "4"]
    server = prepare(words, 0.2, 0.25, request_budgets=True, method="scope")
    assert server.arguments.hf_overrides == {
        **own,
        "hired": {"budget": 0.2, "alpha": 0.25, "method": "scope"},
        "architectures": ["HiredLlavaNextForConditionalGeneration"],
    }
    assert server.arguments.trust_request_mm_kwargs
    assert server.arguments.middleware[0] == "a.B"
    assert server.arguments.max_num_seqs == 4
    assert server.arguments.served_model_name == ["tiny"]
    assert server.architecture == "LlavaNextForConditionalGeneration"
    plain = prepare(["tiny"], 0.2)
    assert not plain.arguments.trust_request_mm_kwargs
    assert plain.settings.method == "hired"


@pytest.mark.parametrize(
    ("words", "budget", "error", "message"),
    [
        (["tiny"], 0, BudgetError, "above 0"),
        (["tiny"], "a fifth", BudgetError, "must be a number"),
        (["tiny"], 0.0001, BudgetError, "leaves no token"),
        (["tiny", "--hf-overrides", '{"hired": {"budget": 0.5}}'], 0.2, BudgetError, "leave hired out"),
        (["tiny", "--model-impl", "transformers"], 0.2, HiredError, "--model-impl"),
        (["tiny", "--enable-mm-embeds"], 0.2, HiredError, "--enable-mm-embeds"),
        (["tiny", "--enable-tower-connector-lora", "--enable-lora"], 0.2, HiredError, "tower-connector-lora"),
        (["tiny", "--pipeline-parallel-size", "2"], 0.2, HiredError, "--pipeline-parallel-size"),
        (["tiny", "--speculative-config", '{"method": "mtp"}'], 0.2, HiredError, "'mtp' is not supported"),
        (["tiny", "--compilation-config", '{"cudagraph_mm_encoder": true}'], 0.2, HiredError, "cudagraph_mm_encoder"),
        (["tiny", "--compilation-config", '{"compile_mm_encoder": true}'], 0.2, HiredError, "compile_mm_encoder"),
        (["tiny", "--mm-processor-kwargs", '{"hired_budget": 0.1}'], 0.2, BudgetError, "is for requests"),
        (["--port", "8000"], 0.2, ModelLoadError, "name the model"),
        (["/nowhere/at/all"], 0.2, ModelLoadError, "'/nowhere/at/all'"),
    ],
)
def test_options_that_will_not_do(words: list[str], budget: object, error: type[HiredError], message: str) -> None:
    with pytest.raises(error, match=message):
        prepare(words, budget)


def test_a_frontend_without_plugins_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUST, "1")
    with pytest.raises(HiredError, match=RUST):
        prepare(["tiny"], 0.2)


def test_guessing_from_the_tokens_alone_passes() -> None:
    words = ["--speculative-config", '{"method": "ngram", "num_speculative_tokens": 2}']
    assert prepare(["tiny", *words], 0.2).arguments.speculative_config["method"] == "ngram"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("cdpruner", "'cdpruner' cannot be served: it reads the question"),
        ("published", "'published' cannot be served: it does not meet the budget to the token"),
        ("overview", "'overview' cannot be served: it does not meet the budget to the token"),
        ("best", "unknown method 'best'; use one of hired, glean, visionzip, "),
    ],
)
def test_methods_that_will_not_do(method: str, message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        prepare(["tiny"], 0.2, method=method)


def test_models_that_cannot_be_pruned(tmp_path: Path) -> None:
    other = checkpoint(tmp_path, architectures=["LlavaNextVideoForConditionalGeneration"])
    with pytest.raises(UnsupportedModelError, match="LlavaNextVideoForConditionalGeneration, which cannot"):
        prepare([other], 0.2)
    siglip = {"model_type": "siglip_vision_model", "image_size": 96, "patch_size": 8, "num_hidden_layers": 2}
    with pytest.raises(UnsupportedModelError, match="vision_feature_select_strategy"):
        prepare([checkpoint(tmp_path, vision_config=siglip)], 0.2)


def test_another_vllm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "__version__", "0.34.0")
    with pytest.raises(UnsupportedModelError, match=r"0\.34\.0 is outside the range"):
        prepare(["tiny"], 0.2)


def test_a_plugin_that_was_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ModelRegistry.models, NAME)
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    with pytest.raises(HiredError, match="did not load HiRED's plugin"):
        prepare(["tiny"], 0.2)


def test_what_is_said_before_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    show(prepare(["tiny", "--trust-request-mm-kwargs"], 144))
    said = capsys.readouterr().out
    assert "keeps 144 tokens of each picture by hired, alpha 0.5; vLLM" in said
    assert "1344x1344            744   144                 3.2 times" in said
    assert "serve clients that you trust" in said
    assert PREFIX not in said
    show(prepare(["tiny"], 0.2, method="scope"))
    assert "keeps 0.2 of the visual tokens by scope; vLLM" in capsys.readouterr().out


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The shipped checkpoint, as `hired serve` is given one, to be damaged."""
    return export(WEIGHTS, tmp_path / "whole")


def change(path: Path, **changes: object) -> None:
    held = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**held, **changes}))


def test_a_whole_checkpoint_passes(whole: Path) -> None:
    assert prepare([str(whole)], 0.2).arguments.model_tag == str(whole)


def test_missing_weights_are_told_before_the_server_starts(whole: Path) -> None:
    pytest.importorskip("accelerate")
    weights = load_file(whole / "model.safetensors")
    kept = dict(sorted(weights.items())[20:])
    save_file(kept, whole / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"lacks 20 weights \("):
        prepare([str(whole)], 0.2)


def test_code_of_a_checkpoint_does_not_run(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    mark = whole / "mark"
    (whole / "payload.py").write_text(f"open({str(mark)!r}, 'w')")
    # transformers asks about this one although it was told not to trust.
    held = json.loads((whole / "processor_config.json").read_text())
    del held["image_processor"]
    (whole / "processor_config.json").write_text(json.dumps({**held, "processor_class": None}))
    change(whole / "tokenizer_config.json", processor_class=None)
    change(
        whole / "preprocessor_config.json",
        image_processor_type="Strange",
        auto_map={"AutoImageProcessor": "payload.Pictures"},
    )
    with pytest.raises(ModelLoadError, match="--trust-remote-code"):
        prepare([str(whole)], 0.2)
    change(whole / "config.json", model_type="strange", auto_map={"AutoConfig": "payload.Config"})
    with pytest.raises(ModelLoadError, match="--trust-remote-code"):
        prepare([str(whole)], 0.2)
    assert not mark.exists()
    assert asked == []


@pytest.mark.parametrize("changes", [{"image_grid_pinpoints": []}, {"image_grid_pinpoints": [[-96, 96]]}])
def test_sizes_that_cannot_be(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ModelLoadError, match="image_grid_pinpoints"):
        prepare([checkpoint(tmp_path, **changes)], 0.2)
