"""What a person with pictures asks: several at a time, pages, follow-ups, comparisons, quantised weights."""

import copy
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image

import hired
from hired import forms, loading, prompts
from hired.caching import cache_argument, cache_of
from hired.cli.answering import How, answer, follow
from hired.cli.app import app
from hired.errors import HiredError, InputsError
from hired.loading import named
from hired.pdf import DPI
from tests.support import models

pytest.importorskip("matplotlib")
needs_pdf = pytest.mark.skipif(importlib.util.find_spec("pypdfium2") is None, reason="needs pypdfium2")
needs_bits = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")

Run = Callable[..., tuple[int, str, str]]
SEEDS = forms.EVAL_SEEDS[:2]


@pytest.fixture(scope="module")
def pages() -> list[forms.Page]:
    return [forms.page(seed) for seed in SEEDS]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: list[forms.Page]) -> Path:
    """A folder to be in, with two pictures and a PDF of both."""
    monkeypatch.chdir(tmp_path)
    for name, page in zip("ab", pages, strict=True):
        page.image.save(f"{name}.png")
    pages[0].image.save("ab.pdf", save_all=True, append_images=[pages[1].image], resolution=144)
    return tmp_path


def told(run: Run, *words: object) -> dict[str, Any]:
    code, out, err = run("ask", *words, "--json")
    assert (code, err) == (0, "")
    result: dict[str, Any] = json.loads(out)
    return result


def check_error(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert (code, out, err.count("\n")) == (2, "", 1)
    for word in words:
        assert word in err


@pytest.mark.usefixtures("there")
def test_several_pictures(run: Run) -> None:
    both = told(run, "a.png", "b.png", "What is TOTAL?")
    alone = [told(run, name, "What is TOTAL?")["images"][0] for name in ("a.png", "b.png")]
    assert both["images"] == alone
    assert [image["name"] for image in both["images"]] == ["a.png", "b.png"]
    assert both["prompt_tokens"] > sum(image["tokens_kept"] for image in alone)


@needs_pdf
@pytest.mark.usefixtures("there")
def test_pages_of_a_pdf(run: Run) -> None:
    assert [image["name"] for image in told(run, "ab.pdf", "What?")["images"]] == ["ab.pdf#1", "ab.pdf#2"]
    (second,) = told(run, "ab.pdf#2", "What?")["images"]
    assert second["size"] == list(Image.open("b.png").size)
    (large,) = told(run, "ab.pdf#2", "What?", "--dpi", 288)["images"]
    assert large["size"] == [2 * side for side in second["size"]]
    check_error(run("ask", "ab.pdf#3", "What?"), "ab.pdf has no page 3: it has 2")
    check_error(run("ask", "ab.pdf", "What?", "--dpi", "0"), "dpi 0")
    check_error(run("view", "ab.pdf", "-o", "out.png"), "stands for 2 pages", "ab.pdf#1")
    assert run("view", "ab.pdf#2", "-o", "out.png")[0] == 0


@needs_pdf
@pytest.mark.usefixtures("there")
def test_the_answer_to_a_page_is_that_to_its_picture(run: Run, pages: list[forms.Page]) -> None:
    asked = pages[1].question()
    assert told(run, "ab.pdf#2", asked)["answer"] == told(run, "b.png", asked)["answer"]


@needs_pdf
@pytest.mark.usefixtures("there")
def test_too_many_pages_are_refused_before_they_are_drawn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hired.cli.ask.MOST_PICTURES", 1)
    check_error(run("ask", "ab.pdf", "What?"), "2 pictures and pages for one question", "hired batch")


@pytest.mark.usefixtures("there")
def test_views_of_several_pictures_are_numbered(run: Run, there: Path) -> None:
    assert run("ask", "a.png", "b.png", "What?", "--view", "kept.png")[0] == 0
    assert {path.name for path in there.glob("kept*")} == {"kept-1.png", "kept-2.png"}


@needs_pdf
@pytest.mark.usefixtures("there")
def test_what_is_read_is_not_drawn_over(run: Run) -> None:
    before = Path("ab.pdf").read_bytes()
    check_error(run("ask", "b.png", "ab.pdf#1", "What?", "--view", "ab.pdf"), "it is the picture that is read")
    check_error(run("view", "ab.pdf#1", "-o", "ab.pdf"), "it is the picture that is read")
    Path("a.png").rename("x-2.png")
    check_error(run("ask", "b.png", "x-2.png", "What?", "--view", "x.png"), "it is the picture that is read")
    assert Path("ab.pdf").read_bytes() == before


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("option", [["--newlines", "keep"], ["--encoder-budget", "2"], ["--method", "glean"]])
def test_settings_of_reduce(run: Run, option: list[str]) -> None:
    plain, other = (told(run, "a.png", "What?", "--budget", 0.1, *more) for more in ([], option))
    assert plain["images"][0]["tokens_kept"] == other["images"][0]["tokens_kept"]
    assert plain["images"][0]["per_partition"] != other["images"][0]["per_partition"] or option[0] != "--newlines"
    assert run("view", "a.png", "-o", "out.png", *option)[0] == 0


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("command", ["ask", "view", "batch"])
@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--newlines", "some"], "newlines='some'"),
        (["--encoder-budget", "0.5"], "encoder"),
        (["--encoder-budget", "nan"], "encoder"),
        (["--encoder-budget", "2", "--newlines", "keep"], "cannot be combined"),
        (["--encoder-budget", "2", "--method", "scope"], "encoder_budget needs shares"),
        (["--method", "none"], "none"),
        (["--load", "2bit"], "unknown load '2bit'"),
    ],
)
def test_bad_settings_are_one_error(run: Run, command: str, options: list[str], word: str) -> None:
    words = {
        "ask": ["ask", "a.png", "What?"],
        "view": ["view", "a.png", "-o", "out.png"],
        "batch": ["batch", "a.png", "-q", "What?", "-o", "out.jsonl"],
    }[command]
    check_error(run(*words, *options), word)
    assert not Path("out.jsonl").exists()


@pytest.mark.usefixtures("there")
def test_a_system_message_is_in_the_prompt(run: Run) -> None:
    plain, led = (told(run, "a.png", "What?", *more) for more in ([], ["--system", "Be brief."]))
    assert led["prompt_tokens"] > plain["prompt_tokens"]
    check_error(run("ask", "a.png", "What?", "--system", "an <image>"), "the system message holds '<image>'")
    check_error(run("ask", "a.png", "What?", "--system", "a\udcff"), "the system message is not valid UTF-8")


def test_a_template_without_system_messages_is_an_error() -> None:
    processor = hired.load_tiny()[1]
    processor.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{% for part in m['content'] %}"
        "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}{% endfor %}"
    )
    assert prompts.prompt(processor, "What?") == "<image>What?"
    with pytest.raises(InputsError, match="takes no system message"):
        prompts.prompt(processor, "What?", system="Be brief.")
    with pytest.raises(InputsError, match="takes no follow-up question"):
        prompts.follow_up(processor, "And?")
    processor.chat_template = "<image>{{ messages[-1]['content'][-1]['text'] }}"
    with pytest.raises(InputsError, match="leaves some of the 2 pictures out"):
        prompts.prompt(processor, "What?", 2)


def test_prompts_without_a_template() -> None:
    processor = models.processor("llava")
    assert prompts.prompt(processor, "Q?", 2, "S.") == "S. USER: <image>\n<image>\nQ? ASSISTANT:"
    assert prompts.prompt(processor, "Q?") == "USER: <image>\nQ? ASSISTANT:"
    assert prompts.follow_up(processor, "R?") == "</s>USER: R? ASSISTANT:"


@pytest.mark.parametrize("name", list(models.ALL))
def test_every_family_takes_several_pictures(name: str) -> None:
    model, processor = models.shared(name), models.processor(name)
    pictures = [Image.radial_gradient("L").resize(size).convert("RGB") for size in ((70, 50), (40, 96))]
    loaded = loading.Loaded(name, model, processor)
    result = answer(loaded, pictures, "a b", How(0.3, max_new_tokens=2))
    assert len(result.selections) == 2
    assert all(chosen.tokens_kept < chosen.tokens_full for chosen in result.selections)


def whole(model: Any, first: Any, ids: torch.Tensor, new: int) -> list[int]:
    """Greedy tokens behind a conversation that is run at once, on inputs that were reduced."""
    there = {**first, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    made = model.generate(**there, max_new_tokens=new, do_sample=False)
    return made[0, ids.shape[1] :].tolist()


def test_a_follow_up_is_answered_as_if_all_was_run_at_once(pages: list[forms.Page]) -> None:
    loaded = loading.load("tiny", "cpu")
    how, image = How(0.2), pages[0].image
    first = answer(loaded, [image], pages[0].question(), how)
    kept = first.ids.clone()
    second = follow(loaded, first, "What is TOTAL?", how)
    third = follow(loaded, second, "And TAX?", how)
    tokenizer = loaded.processor.tokenizer
    text = tokenizer.decode(third.ids[0]).replace("<image>", "")
    asked = [pages[0].question(), "What is TOTAL?", "And TAX?"]
    told = [reply.text for reply in (first, second, third)]
    wanted = "".join(f"<|user|>{q}<|assistant|>{a}<|end|>" for q, a in zip(asked, told, strict=True))
    assert "".join(text.split()).endswith("".join(wanted.split()))
    assert torch.equal(third.ids[:, : kept.shape[1]], kept)
    words = prompts.prompt(loaded.processor, asked[0])
    reduced = hired.reduce(loaded.model, prompts.inputs(loaded.model, loaded.processor, [words], [image]), 0.2)
    with torch.inference_mode():
        for reply in (second, third):
            ids = reply.ids[:, : reply.prompt_tokens]
            assert whole(loaded.model, reduced, ids, reply.new_tokens) == reply.ids[0, reply.prompt_tokens :].tolist()


def test_an_answer_that_was_cut_is_ended_by_the_template(pages: list[forms.Page]) -> None:
    loaded = loading.load("tiny", "cpu")
    first = answer(loaded, [pages[0].image], pages[0].question(), How(0.2, max_new_tokens=1))
    second = follow(loaded, first, "And?", How(max_new_tokens=1))
    tail = loaded.processor.tokenizer.decode(second.ids[0, first.ids.shape[1] : second.prompt_tokens])
    assert tail.startswith("<|end|>")


@pytest.mark.parametrize("name", list(models.ALL))
def test_follow_ups_in_every_family(name: str) -> None:
    model, processor = models.shared(name), models.processor(name)
    loaded = loading.Loaded(name, model, processor)
    image = Image.radial_gradient("L").resize((70, 50)).convert("RGB")
    how = How(0.3, max_new_tokens=3)
    first = answer(loaded, [image], "a b", how)
    before = first.ids.shape[1]
    second = follow(loaded, first, "c d", how)
    tail = second.ids[:, before : second.prompt_tokens]
    inputs = prompts.inputs(model, processor, [prompts.prompt(processor, "a b")], [image])
    settings = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
    other = copy.deepcopy(model)
    with torch.inference_mode(), hired.enable(other, 0.3):
        begun = other.generate(**inputs, **settings)
        ids = torch.cat((begun.sequences, tail), 1)
        cache = {cache_argument(model): cache_of(begun)}
        done = other.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **cache, **settings)
    assert begun.sequences[0, inputs["input_ids"].shape[1] :].tolist() == first.ids[0, first.prompt_tokens :].tolist()
    assert done.sequences[0, ids.shape[1] :].tolist() == second.ids[0, second.prompt_tokens :].tolist()


def test_chat(run: Run, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"What is TOTAL?\n\n  And TAX?  \n")))
    code, out, err = run("ask", "a.png", "What is DATE?", "--chat", "--view", "kept.png")
    assert (code, err) == (0, "")
    costs = [line for line in out.splitlines() if " | first token " in line]
    assert len(costs) == 3
    assert "visual tokens" in costs[0]
    assert all("tokens so far" in line for line in costs[1:])
    assert (there / "kept.png").is_file()


@pytest.mark.usefixtures("there")
def test_chat_ends_at_a_question_that_will_not_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"What is <image>?\nAnd?\n")))
    code, out, err = run("ask", "a.png", "What?", "--chat")
    assert (code, err.count("\n"), out.count(" | first token ")) == (2, 1, 1)
    assert "the question holds '<image>'" in err


@pytest.mark.usefixtures("there")
def test_a_person_who_chats_is_asked_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hired.cli.chat._asked_for", lambda: True)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"What is <image>?\nAnd?\n")))
    code, out, err = run("ask", "a.png", "What?", "--chat")
    assert (code, out.count("> "), out.count(" | first token ")) == (0, 4, 2)  # one in "444 -> 86"
    assert err.startswith("hired: warning: the question holds '<image>'")


def test_the_resolution_of_the_commands_is_that_of_the_library() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name in ("ask", "batch", "view"):
        assert next(each.default for each in commands[name].params if each.name == "dpi") == DPI


@pytest.mark.usefixtures("there")
def test_compare(run: Run, pages: list[forms.Page]) -> None:
    asked = pages[0].question()
    code, out, err = run("ask", "a.png", asked, "--compare")
    assert (code, err) == (0, "")
    head, untouched, reduced = out.splitlines()
    assert head.split() == ["visual", "tokens", "first", "token,", "ms", "tokens/s", "answer"]
    both = told(run, "a.png", asked, "--compare")
    alone = [told(run, "a.png", asked, "--budget", budget) for budget in (1, 0.2)]
    assert [both["untouched"]["answer"], both["answer"]] == [each["answer"] for each in alone]
    assert both["untouched"]["images"] == alone[0]["images"]
    assert both["images"] == alone[1]["images"]
    assert both["untouched"]["budget"] == 1
    for line, each in zip((untouched, reduced), alone, strict=True):
        assert str(each["images"][0]["tokens_kept"]) in line
        assert line.endswith(each["answer"])


@pytest.mark.usefixtures("there")
def test_the_untouched_model_of_a_comparison_has_no_encoder_budget(run: Run) -> None:
    both = told(run, "a.png", "What?", "--compare", "--encoder-budget", 1.5)
    plain = told(run, "a.png", "What?", "--budget", 1)
    assert both["untouched"]["answer"] == plain["answer"]
    assert both["untouched"]["images"] == plain["images"]


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--chat", "--json"], ("--chat", "--json")),
        (["--chat", "--compare"], ("--chat", "--compare")),
        (["--compare", "--view", "x.png"], ("--compare", "--view")),
    ],
)
def test_options_that_do_not_go_together(
    run: Run, options: list[str], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hired.loading.load", lambda *_: pytest.fail("a model was loaded"))
    check_error(run("ask", "a.png", "What?", *options), *words)
    check_error(run("ask", "missing.png", "What?", *options), *words)


def test_chat_and_a_picture_on_standard_input(run: Run) -> None:
    check_error(run("ask", "-", "What?", "--chat"), "--chat reads questions from standard input")


@needs_bits
@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("load", loading.LOADS)
def test_quantised_weights(run: Run, load: str, pages: list[forms.Page]) -> None:
    plain, packed = (told(run, "a.png", pages[0].question(), *more) for more in ([], ["--load", load]))
    assert packed["images"] == plain["images"]
    assert packed["answer"]
    assert run("view", "a.png", "-o", "out.png", "--load", load)[0] == 0


@pytest.mark.usefixtures("there")
def test_bad_pictures_among_good_ones(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "_tiny", lambda device, dtype: pytest.fail("a model was loaded"))
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:200])
    check_error(run("ask", "a.png", "cut.png", "What?"), "cut.png is broken or truncated")
    check_error(run("ask", "a.png", "missing.png", "What?"), "no such file: missing.png")
    check_error(run("ask", "a.png"), "Missing argument", "--help")


def test_errors_are_ours() -> None:
    with pytest.raises(HiredError):
        How(0.2, newlines="some").check("What?")
