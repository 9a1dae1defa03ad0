"""Answers of strangers' checkpoints: their generation settings change nothing, their broken templates are told."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hired
from hired import forms, greedy, loading, prompts
from hired.cli import main
from hired.errors import InputsError, ModelLoadError
from hired.evaluation import Settings
from hired.evaluation.run import evaluate
from hired.tiny import WEIGHTS
from tests.support.models import ALL, processor

PAGE = forms.page(forms.DEMO_SEEDS[1])  # one that the shipped model reads
Change = Callable[[str, Any], Path]

SETTINGS: dict[str, dict[str, Any]] = {
    "sequences": {"num_return_sequences": 3},
    "sequences of beams": {"num_return_sequences": 3, "num_beams": 3},
    "sequences of samples": {"num_return_sequences": 2, "do_sample": True},
    "dict": {"return_dict_in_generate": True, "output_scores": True, "output_logits": True},
    "outputs": {"output_attentions": True, "output_hidden_states": True, "return_dict_in_generate": True},
    "beams": {"num_beams": 4, "length_penalty": -9.0, "early_stopping": True},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
    "sampling": {"do_sample": True, "temperature": 50.0, "top_k": 40, "top_p": 0.99},
    "penalties": {"repetition_penalty": 50.0, "no_repeat_ngram_size": 1, "encoder_repetition_penalty": 9.0},
    "contrast": {"penalty_alpha": 0.6, "top_k": 4},
    "lengths": {"min_new_tokens": 12, "min_length": 5000, "max_length": 2, "max_time": 0.0},
    "suppressed": {"suppress_tokens": list(range(3, 20)), "begin_suppress_tokens": list(range(3, 20))},
    "words": {"bad_words_ids": [[i] for i in range(3, 20)], "sequence_bias": [[[7], 90.0]]},
    "forced": {"forced_bos_token_id": 9, "forced_eos_token_id": 2, "exponential_decay_length_penalty": [0, 9.0]},
    "strings": {"stop_strings": ["7", "9"]},
    "guidance": {"guidance_scale": 5.0},
    "lookup": {"prompt_lookup_num_tokens": 3},
    "layers": {"dola_layers": "high"},
    "mark": {"watermarking_config": {"bias": 90.0}},
    "cache": {"cache_implementation": "static", "use_cache": False},
    "refused by transformers": {"max_new_tokens": -1, "pad_token_id": "x", "cache_implementation": "none"},
    "other words": {"custom_generate": "someone/something", "pad_token_id": 10**7, "bos_token_id": "x"},
}


@pytest.fixture
def change(tmp_path: Path) -> Change:
    """A copy of the shipped model with a file of it changed."""

    def made(name: str, content: Any) -> Path:
        model = tmp_path / "model"
        shutil.copytree(WEIGHTS, model, copy_function=lambda a, b: Path(b).symlink_to(a))
        path = model / name
        if isinstance(content, dict):
            known = json.loads(path.read_text()) if path.exists() else {}
            content = json.dumps({**known, **content})
        path.unlink(missing_ok=True)
        path.write_text(content)
        PAGE.image.save(tmp_path / "page.png")
        return model

    return made


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`hired ask` about the page, 12 tokens at most."""

    def call(model: Path | str, *more: str, question: str = PAGE.question()) -> tuple[int, str, str]:
        PAGE.image.save(tmp_path / "page.png")
        options = ["--model", str(model), "--max-new-tokens", "12", "--budget", "0.5", *more]
        code = main(["ask", str(tmp_path / "page.png"), question, *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def one_line(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("hired: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.fixture(scope="module")
def truth() -> list[Any]:
    """Answers and rows of the shipped model as it is."""
    model, known = hired.load_tiny()
    return evaluate(model, known, Settings(limit=4, batch_size=4, budgets=(0.5,)), prompts.prompt)


def test_the_page_is_read(ask) -> None:
    code, out, _ = ask("tiny", "--json")
    assert (code, json.loads(out)["answer"]) == (0, PAGE.fields[0].value)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_settings_of_the_checkpoint_change_no_answer(ask, change: Change, name: str) -> None:
    model = change("generation_config.json", SETTINGS[name])
    code, out, err = ask(model, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["answer"] == PAGE.fields[0].value


@pytest.mark.parametrize("name", ["sequences of beams", "dict"])
def test_settings_of_the_checkpoint_change_no_streamed_answer(ask, change: Change, name: str) -> None:
    code, out, err = ask(change("generation_config.json", SETTINGS[name]))
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == PAGE.fields[0].value


@pytest.mark.parametrize("name", ["sequences", "outputs", "groups", "sampling", "penalties"])
def test_settings_of_the_checkpoint_change_no_measurement(change: Change, truth: list[Any], name: str) -> None:
    loaded = loading.load(str(change("generation_config.json", SETTINGS[name])))
    settings = Settings(limit=4, batch_size=4, budgets=(0.5,))
    before = loaded.model.generation_config
    found = evaluate(loaded.model, loaded.processor, settings, prompts.prompt)
    assert [{**row, "choose_ms": None} for row in found] == [{**row, "choose_ms": None} for row in truth]
    assert loaded.model.generation_config is before


def test_the_measurement_tells_something(truth: list[Any]) -> None:
    assert any(row["correct"] > 0 for row in truth)


def test_answers_end_where_the_checkpoint_says(ask, change: Change) -> None:
    _, known = hired.load_tiny()
    first = known.tokenizer.encode(PAGE.fields[0].value, add_special_tokens=False)
    changed = change("generation_config.json", {"eos_token_id": [2, first[1]]})
    assert json.loads(ask(changed, "--json")[1])["answer"] == known.tokenizer.decode(first[:2])


@pytest.mark.parametrize("ids", ["abc", [2, "b"], [], True, 2.0, {"a": 1}])
@pytest.mark.parametrize("command", ["ask", "eval"])
def test_end_tokens_that_are_none(change: Change, capsys, tmp_path: Path, ids: Any, command: str) -> None:
    model = str(change("generation_config.json", {"eos_token_id": ids}))
    arguments = ["ask", str(tmp_path / "page.png"), "What?"] if command == "ask" else ["eval", "--limit", "1"]
    code = main([*arguments, "--model", model])
    one_line((code, *capsys.readouterr()), "eos_token_id", "generation_config.json")


@pytest.mark.parametrize("content", ["[]", "null", '"words"', "5"])
def test_generation_configs_that_are_no_settings(ask, change: Change, content: str) -> None:
    one_line(ask(change("generation_config.json", content)), "generation_config.json")


def test_a_generation_config_that_is_no_json(ask, change: Change) -> None:
    code, out, _ = ask(change("generation_config.json", "{"), "--json")  # transformers takes config.json's tokens
    assert (code, json.loads(out)["answer"]) == (0, PAGE.fields[0].value)


def test_settings_come_back_after_an_error() -> None:
    model, known = hired.load_tiny()
    before = model.generation_config
    with pytest.raises(ValueError, match="nonsense"):
        greedy.generate(model, known, {"input_ids": 5, "nonsense": []}, 3)
    assert model.generation_config is before


BROKEN = {
    "{{ raise_exception('no pictures here') }}": "no pictures here",
    "{% for message in messages %}": "TemplateSyntaxError",
    "{{ messages[7].content.nothing }}": "UndefinedError",
    "{{ 1 / 0 }}": "ZeroDivisionError",
    "{{ 'a' + 1 }}": "TypeError",
    "{{ ''.__class__.__mro__ }}<image>": "",
    "{% include 'other' %}": "",
}
WITHOUT = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    "USER: {% for part in messages[0]['content'] %}{{ part['text'] }}{% endfor %} ASSISTANT:",
    "hello",
    " ",
)
COMMANDS = ("ask", "view", "eval")


def attempt(command: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    page = str(tmp_path / "page.png")
    arguments = {
        "ask": ["ask", page, "What?"],
        "view": ["view", page, "-o", str(tmp_path / "out.png")],
        "eval": ["eval", "--limit", "1"],
    }[command]
    code = main([*arguments, "--model", str(model)])
    captured = capsys.readouterr()
    assert not (tmp_path / "out.png").exists()
    return code, captured.out, captured.err


@pytest.mark.parametrize("template", list(BROKEN))
def test_broken_templates(change: Change, tmp_path: Path, capsys, template: str) -> None:
    model = change("chat_template.jinja", template)
    for command in COMMANDS:
        one_line(attempt(command, model, tmp_path, capsys), "chat template", BROKEN[template])


@pytest.mark.parametrize("template", WITHOUT)
def test_templates_that_leave_the_picture_out(change: Change, tmp_path: Path, capsys, template: str) -> None:
    model = change("chat_template.jinja", template)
    for command in COMMANDS:
        one_line(attempt(command, model, tmp_path, capsys), "chat template leaves the picture out", "<image>")


def test_templates_that_leave_the_question_out(change: Change, tmp_path: Path, capsys) -> None:
    model = change("chat_template.jinja", "USER: <image>\n ASSISTANT:")
    for command in COMMANDS:
        one_line(attempt(command, model, tmp_path, capsys), "chat template leaves the question out")


@pytest.mark.parametrize("template", ["<image>{% for part in messages[0].content %}<image>{{ part.text }}{% endfor %}"])
def test_templates_that_show_the_picture_twice(change: Change, tmp_path: Path, capsys, template: str) -> None:
    model = change("chat_template.jinja", template)
    for command in COMMANDS:
        one_line(attempt(command, model, tmp_path, capsys))


@pytest.mark.parametrize("question", ["<image>", "What is <image>?", "<image> <image>"])
def test_questions_with_a_placeholder(ask, question: str) -> None:
    one_line(ask("tiny", question=question), "'<image>'", "leave it out")


@pytest.mark.parametrize("name", list(ALL))
def test_prompts_of_every_family_hold_the_picture_once(name: str) -> None:
    known = processor(name)
    words = prompts.prompt(known, "What is TOTAL?")
    assert "What is TOTAL?" in words
    assert sum(words.count(token) for token in prompts._placeholders(known)) == 1


class Odd:
    """A processor that is wrapped to fail."""

    def __init__(self, inner: Any, error: Exception | None = None, top: int | None = None) -> None:
        self._inner, self._error, self._top = inner, error, top

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, **given: Any) -> Any:
        if self._error is not None:
            raise self._error
        made = self._inner(**given)
        if self._top is not None:
            made["input_ids"][0, 0] = self._top
        return made


@pytest.mark.parametrize(
    "error", [ValueError("odd\nthings\x1b[31m"), StopIteration(), KeyError("x"), IndexError(), RuntimeError("y" * 5000)]
)
def test_processors_that_raise(error: Exception) -> None:
    model, known = hired.load_tiny()
    with pytest.raises(InputsError) as caught:
        prompts.inputs(model, Odd(known, error), [prompts.prompt(known, "What?")], [PAGE.image])
    message = str(caught.value)
    assert re.match(r"the model's processor cannot take this prompt and picture \(\d+ x \d+ pixels\): \w+", message)
    assert message.isprintable()
    assert len(message) < 300


def test_tokens_that_the_model_does_not_have() -> None:
    model, known = hired.load_tiny()
    top = model.get_input_embeddings().num_embeddings
    words = [prompts.prompt(known, "What?")]
    assert int(prompts.inputs(model, Odd(known, top=top - 1), words, [PAGE.image])["input_ids"].max()) == top - 1
    with pytest.raises(InputsError, match="not of one checkpoint"):
        prompts.inputs(model, Odd(known, top=top), words, [PAGE.image])


def test_a_repaired_config_ends_where_the_file_says(change: Change) -> None:
    assert greedy.repaired(str(WEIGHTS)) is None
    model = change("generation_config.json", {"num_return_sequences": 3, "eos_token_id": [2, 7]})
    made = greedy.repaired(str(model))
    assert made.eos_token_id == [2, 7]
    assert made.num_return_sequences is None


def test_end_tokens() -> None:
    model, _ = hired.load_tiny()
    assert greedy.end_tokens(model) == [2]
    model.generation_config.eos_token_id = [3, 4]
    assert greedy.end_tokens(model) == [3, 4]
    model.generation_config.eos_token_id = None
    assert greedy.end_tokens(model) is None
    model.generation_config.eos_token_id = torch.tensor(2)
    with pytest.raises(ModelLoadError):
        greedy.end_tokens(model)
