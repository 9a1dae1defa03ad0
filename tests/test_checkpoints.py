"""Checkpoints of other people: whole or refused, and no code of theirs runs unless that was asked for."""

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import hired
from hired.cli import main
from hired.errors import HiredError, ModelLoadError
from hired.loading.checkpoints import load_config, load_model, load_processor
from hired.loading.strangers import reason
from hired.tiny import WEIGHTS
from tests.support.models import ALL

WORDS = "What is TOTAL?"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The shipped checkpoint, to be damaged, and a picture beside it."""
    Image.radial_gradient("L").resize((60, 40)).convert("RGB").save(tmp_path / "page.png")
    return Path(shutil.copytree(WEIGHTS, tmp_path / "model"))


def commands(folder: Path) -> dict[str, list[str]]:
    """Every command that loads a checkpoint, as short as it can be."""
    page, name = str(folder.parent / "page.png"), str(folder)
    bench = ["--image", "60x40", "--new-tokens", "2", "--repeats", "1", "--warmup", "0", "--no-memory"]
    bench += ["--budgets", "0.5", "--device", "cpu"]
    return {
        "ask": ["ask", page, WORDS, "--model", name, "--max-new-tokens", "2", "--device", "cpu"],
        "view": ["view", page, "--model", name, "-o", str(folder.parent / "out.png"), "--device", "cpu"],
        "eval": ["eval", "--model", name, "--limit", "1", "--budgets", "0.5", "--methods", "hired", "--device", "cpu"],
        "plan": ["plan", name, "--image", "60x40", "--budgets", "0.5", "--device", "cpu"],
        "bench": ["bench", "--model", name, *bench],
        "tune": ["tune", name, page, "-q", WORDS, "--max-new-tokens", "2", "--budgets", "0.5", "--device", "cpu"],
        "check": ["check", name, "--device", "cpu"],
    }


LOADING = ("ask", "view", "eval", "bench", "tune", "check")
COMMANDS = (*LOADING, "plan")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Runs a command that must fail: its one line."""

    def call(words: list[str]) -> str:
        assert main(words) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("hired: ")
        assert said.err.count("\n") == 1
        assert len(said.err) < 700
        return said.err

    return call


def change(path: Path, **changes: Any) -> None:
    """Sets keys of a JSON file; `None` removes one, and dots lead into parts."""
    held = json.loads(path.read_text()) if path.exists() else {}
    for key, value in changes.items():
        part = held
        *outer, last = key.split("__")
        for name in outer:
            part = part[name]
        if value is None:
            part.pop(last, None)
        else:
            part[last] = value
    path.write_text(json.dumps(held))


def rewrite(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def drop(weights: dict[str, torch.Tensor]) -> None:
    for name in sorted(weights)[:20]:
        del weights[name]


def reshape(weights: dict[str, torch.Tensor]) -> None:
    weights["model.image_newline" if "model.image_newline" in weights else sorted(weights)[0]] = torch.zeros(3, 5)


@pytest.mark.parametrize("command", LOADING)
@pytest.mark.parametrize(
    ("edit", "words"),
    [(drop, ("lacks 20 weights (", "and 17 more)", "language_model")), (reshape, ("1 weight", "is 3 x 5 in place of"))],
)
def test_weights_that_are_not_there(copy: Path, refused: Any, command: str, edit: Any, words: tuple[str, ...]) -> None:
    rewrite(copy, edit)
    said = refused(commands(copy)[command])
    assert str(copy) in said
    for word in words:
        assert word in said


def test_a_checkpoint_of_another_shape(copy: Path, refused: Any) -> None:
    change(copy / "config.json", text_config__intermediate_size=256)
    said = refused(commands(copy)["ask"])
    assert "9 weights of another shape than its config.json tells" in said
    assert "512 x 192 in place of 256 x 192" in said or "192 x 512 in place of 192 x 256" in said
    change(copy / "config.json", text_config__intermediate_size=512, text_config__num_hidden_layers=4)
    assert "lacks 9 weights (model.language_model.layers.3." in refused(commands(copy)["ask"])


@pytest.mark.parametrize("name", list(ALL))
def test_every_family_saved_loads_whole(name: str, tmp_path: Path) -> None:
    model = ALL[name].model()
    model.save_pretrained(tmp_path)
    assert load_config(str(tmp_path), name).model_type == model.config.model_type
    loaded = load_model(str(tmp_path), name)
    held = loaded.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(held[key], value), key


def test_the_shipped_model_is_loaded_strictly(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hired.tiny.WEIGHTS", copy)
    assert len(hired.load_tiny()) == 2
    rewrite(copy, drop)
    with pytest.raises(ModelLoadError, match=r"'tiny' lacks 20 weights"):
        hired.load_tiny()


@pytest.mark.parametrize("dtype", ["float33", "int64", "Tensor", 5, None, torch.int8])
def test_dtypes_that_are_none(dtype: Any) -> None:
    with pytest.raises(ModelLoadError, match="dtype="):
        hired.load_tiny(dtype)


@pytest.mark.parametrize("device", ["nonsense", "", "cuda:99", None])
def test_devices_that_are_none(device: Any) -> None:
    with pytest.raises(ModelLoadError, match="cannot be used"):
        hired.load_tiny(device=device)


PAYLOAD = """
import pathlib
pathlib.Path({mark!r}).write_text("I was here")
from transformers import LlavaNextConfig, LlavaNextProcessor, LlavaNextImageProcessorPil, PreTrainedTokenizerFast
class Config(LlavaNextConfig): pass
class Processor(LlavaNextProcessor): pass
class Pictures(LlavaNextImageProcessorPil): pass
class Words(PreTrainedTokenizerFast): pass
"""


def own_config(folder: Path) -> None:
    change(folder / "config.json", model_type="strange", auto_map={"AutoConfig": "payload.Config"})


def own_processor(folder: Path) -> None:
    change(folder / "processor_config.json", processor_class="Strange", auto_map={"AutoProcessor": "payload.Processor"})


def own_pictures(folder: Path) -> None:
    change(folder / "processor_config.json", image_processor=None)
    change(
        folder / "preprocessor_config.json",
        image_processor_type="Strange",
        auto_map={"AutoImageProcessor": "payload.Pictures"},
    )


def own_words(folder: Path) -> None:
    words = {"AutoTokenizer": [None, "payload.Words"]}
    change(folder / "tokenizer_config.json", tokenizer_class="Strange", auto_map=words)


def unnamed(folder: Path) -> None:
    """transformers asks about it although it was told not to trust: no file names the processor's class."""
    own_pictures(folder)
    for name in ("processor_config.json", "tokenizer_config.json"):
        change(folder / name, processor_class=None)


OWN = {
    "config": own_config,
    "processor": own_processor,
    "pictures": own_pictures,
    "words": own_words,
    "unnamed": unnamed,
}


@pytest.fixture
def strange(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A checkpoint with code in it, and the file that its code would make."""
    mark = tmp_path / "mark"
    (copy / "payload.py").write_text(PAYLOAD.format(mark=str(mark)))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return copy, mark


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("where", list(OWN))
def test_code_of_a_checkpoint_does_not_run(
    strange: tuple[Path, Path], refused: Any, monkeypatch: pytest.MonkeyPatch, command: str, where: str
) -> None:
    folder, mark = strange
    OWN[where](folder)
    asked: list[object] = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    # `plan` reads no more than the configuration; transformers has a tokenizer of its own for the family.
    if where == "words" or (command == "plan" and where != "config"):
        assert main(commands(folder)[command]) == 0
    else:
        said = refused(commands(folder)[command])
        assert "--trust-remote-code" in said
        assert str(folder) in said
    assert not mark.exists()
    assert asked == []


@pytest.mark.parametrize("where", list(OWN))
def test_code_beside_a_known_class_is_left_alone(strange: tuple[Path, Path], where: str) -> None:
    folder, mark = strange
    kind = {"config": "AutoConfig", "processor": "AutoProcessor", "pictures": "AutoImageProcessor"}.get(where, "")
    names = {"config": "config.json", "processor": "processor_config.json"}
    change(folder / names.get(where, "tokenizer_config.json"), auto_map={kind or "AutoTokenizer": "payload.Config"})
    assert main(commands(folder)["view"]) == 0
    assert not mark.exists()


@pytest.mark.parametrize("named", [None, "", "NoSuchProcessor"])
def test_no_processor_that_a_file_names_badly_asks(
    copy: Path, refused: Any, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    """transformers then takes the class of the model's type, and hands on to its parts that anything goes."""
    asked: list[object] = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    mark = copy / "mark"
    (copy / "payload.py").write_text(f"open({str(mark)!r}, 'w')")
    held = json.loads((copy / "processor_config.json").read_text())
    held.pop("image_processor", None)
    (copy / "processor_config.json").write_text(json.dumps({**held, "processor_class": named}))
    told = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**told, "processor_class": named}))
    strange = {"image_processor_type": "Strange", "auto_map": {"AutoImageProcessor": "payload.Pictures"}}
    (copy / "preprocessor_config.json").write_text(json.dumps(strange))
    assert "--trust-remote-code" in refused(commands(copy)["view"])
    assert not asked
    assert not mark.exists()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("part", ["", "text_config", "vision_config"])
def test_kernels_of_the_hub_are_code_too(copy: Path, refused: Any, command: str, part: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    (config[part] if part else config)["attn_implementation"] = "somebody/kernel"
    (copy / "config.json").write_text(json.dumps(config))
    said = refused(commands(copy)[command])
    assert "'somebody/kernel'" in said
    assert "--trust-remote-code" in said


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_is_asked_on_pipes_and_terminals(strange: tuple[Path, Path], terminal: bool) -> None:
    folder, mark = strange
    unnamed(folder)
    own = Path(shutil.copytree(folder, folder.parent / "own"))
    own_config(own)
    runs = [each[command] for each in (commands(folder), commands(own)) for command in COMMANDS]
    runs.remove(commands(folder)["plan"])
    code = "import json, sys; from hired.cli import main; print([main(words) for words in json.loads(sys.argv[1])])"
    words = [sys.executable, "-c", code, json.dumps(runs)]
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"y\n" * 40)
        given: dict[str, Any] = {"stdin": theirs} if terminal else {"input": b"y\n" * 40}
        done = subprocess.run(words, capture_output=True, check=False, **given)
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.stdout.decode() == f"{[2] * len(runs)}\n"
    assert done.stderr.count(b"\n") == done.stderr.count(b"--trust-remote-code") == len(runs)
    assert not mark.exists()


def test_the_switch_runs_it(strange: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder, mark = strange
    own_processor(folder)
    assert main([*commands(folder)["ask"], "--trust-remote-code"]) == 0, capsys.readouterr().err
    assert mark.read_text() == "I was here"


@pytest.mark.parametrize("command", [*COMMANDS, "serve"])
def test_the_switch_is_everywhere_and_says_what_it_opens(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # names that are cut off on a narrow terminal
    monkeypatch.setenv("TERMINAL_WIDTH", "300")
    assert main([command, "--help"]) == 0
    said = "".join(capsys.readouterr().out.split())
    assert "--trust-remote-code" in said
    assert "Pythoncodethatcomeswiththecheckpoint" in said.replace("│", "")


SIZES = {
    "image_grid_pinpoints": [[], [[]], [[0, 96]], [[-96, 96]], [[96]], [96, 96], "96", [["a", "b"]], [[10**9, 10**9]]],
    "vision_config__patch_size": [0, -8, 97],
    "vision_config__image_size": [0, -96],
    "vision_config__hidden_size": [0, -1],
    "vision_config__num_hidden_layers": [0, 10**9],
    "text_config__num_attention_heads": [0],
    "text_config__vocab_size": [0, -3],
}


@pytest.mark.parametrize("command", ["ask", "view", "bench", "plan"])
@pytest.mark.parametrize("key", list(SIZES))
def test_sizes_that_cannot_be(copy: Path, refused: Any, command: str, key: str) -> None:
    before = (copy / "config.json").read_text()
    for value in SIZES[key]:
        (copy / "config.json").write_text(before)
        change(copy / "config.json", **{key: value})
        said = refused(commands(copy)[command])
        assert key.split("__")[-1] in said, said
        assert str(copy) in said


TEMPLATES = {
    "{% for": "is broken",
    "{{ messages[0].nothing.at_all }}": "is broken",
    "{{ raise_exception('no') }}": "no",
    "USER: {{ messages[0].content[-1].text }} ASSISTANT:": "leaves the picture out",
    "nothing": "leaves the picture out",
}


@pytest.mark.parametrize("command", ["ask", "view", "eval"])
@pytest.mark.parametrize("template", list(TEMPLATES))
def test_chat_templates(copy: Path, refused: Any, command: str, template: str) -> None:
    (copy / "chat_template.jinja").write_text(template)
    said = refused(commands(copy)[command])
    assert "chat template" in said
    assert TEMPLATES[template] in said


GENERATION = [
    {"num_return_sequences": 3, "num_beams": 3},
    {"return_dict_in_generate": True, "output_scores": True, "output_attentions": True},
    {"do_sample": True, "temperature": 0.001, "top_k": 1, "num_return_sequences": 2},
    {"num_beams": 4, "length_penalty": 3.0, "early_stopping": True, "num_beam_groups": 2, "diversity_penalty": 1.0},
    {"max_new_tokens": 1, "min_new_tokens": 1, "max_length": 3, "max_time": 0.000001},
    {"cache_implementation": "static", "use_cache": False},
    {"stop_strings": ["a"], "prompt_lookup_num_tokens": 3, "guidance_scale": 3.0},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"watermarking_config": {"bias": 2.0}, "assistant_confidence_threshold": 0.1},
]


@pytest.mark.parametrize("settings", GENERATION)
def test_settings_of_generate(copy: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any]) -> None:
    words = [*commands(copy)["ask"], "--json"]
    words[words.index("--max-new-tokens") + 1] = "6"
    told: list[dict[str, Any]] = []
    for changes in ({}, settings):
        change(copy / "generation_config.json", **changes)
        assert main(words) == 0, capsys.readouterr().err
        told.append(json.loads(capsys.readouterr().out))
    assert told[1]["answer"] == told[0]["answer"]
    assert told[1]["prompt_tokens"] == told[0]["prompt_tokens"]
    assert main(commands(copy)["eval"]) == 0


def test_the_reason_is_told() -> None:
    outer = OSError("Unable to load.\nMore words")
    outer.__cause__ = KeyError("model_type")
    assert reason(outer) == "Unable to load.; KeyError: 'model_type'"
    assert reason(ValueError("Validation of field 'x':\n  is no number")) == "Validation of field 'x': is no number"
    assert reason(ZeroDivisionError("division by zero")) == "ZeroDivisionError: division by zero"
    assert reason(RuntimeError()) == "RuntimeError"
    assert len(reason(ValueError("x" * 1000))) < 330


@pytest.mark.parametrize("broken", ["{", "[]", "5", "null", '{"model_type": 5}', '{"model_type": ["llava"]}', "\x00"])
def test_configurations_that_are_none(copy: Path, refused: Any, broken: str) -> None:
    (copy / "config.json").write_text(broken)
    for command in COMMANDS:
        assert str(copy) in refused(commands(copy)[command])


def test_a_processor_that_is_none(copy: Path) -> None:
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(HiredError):
        load_processor(str(copy), "x")
