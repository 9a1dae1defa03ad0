"""What `hired page` answers and keeps, without a page; tests/page has the page itself."""

import importlib.util
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import hired
from hired import greedy, prompts
from hired.errors import BudgetError, HiredError, ImageError, InputsError
from hired.families import family_of
from hired.loading import Loaded
from hired.methods import METHODS
from hired.page import server, words
from hired.page.reader import Answer, Reader
from hired.page.tabs import Tabs, pages_of
from tests.support import models
from tests.support.watching import unnoticed

QUESTION = "what is it?"
NEW = 6


def picture(size: tuple[int, int] = (70, 50), seed: int = 0) -> Image.Image:
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def reader(name: str = "llava_next") -> Reader:
    return Reader(Loaded(name, models.shared(name), models.processor(name)), NEW)


def ids(made: Reader, inputs: Any) -> str:
    """What the model says to inputs, without the page."""
    out = greedy.generate(made.loaded.model, made.loaded.processor, inputs, NEW)
    new = out[0, inputs["input_ids"].shape[1] :]
    return str(made.loaded.processor.tokenizer.decode(new, skip_special_tokens=True)).strip()


def plain(made: Reader, image: Image.Image) -> Any:
    said = prompts.prompt(made.loaded.processor, QUESTION)
    return prompts.inputs(made.loaded.model, made.loaded.processor, [said], [image])


@pytest.fixture
def runs() -> Iterator[Callable[[Any], list[int]]]:
    """Counts the runs of a model's encoder."""
    handles = []

    def watch(model: Any) -> list[int]:
        seen: list[int] = []
        hook = unnoticed(lambda *_: seen.append(1))
        handles.append(family_of(model).parts(model).tower.register_forward_hook(hook))
        return seen

    yield watch
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("name", list(models.ALL))
def test_both_answers_are_those_of_generate(name: str) -> None:
    made, image = reader(name), picture(models.ALL[name].sizes[0])
    seen = made.see(image)
    choice = made.choose(seen, QUESTION, 0.4, "hired")
    answers = made.untouched(seen, QUESTION), made.reduced(seen, QUESTION, choice)
    inputs = plain(made, image)
    with torch.inference_mode():
        reduced = hired.reduce(made.loaded.model, inputs, 0.4, images=[image])
        assert answers[1].text == ids(made, reduced)
        assert answers[0].text == ids(made, inputs)
    expected = reduced.selection[0]
    assert choice.selection.rows == expected.rows
    assert (answers[0].tokens, answers[1].tokens) == (expected.tokens_full, expected.tokens_kept)
    assert answers[0].cache_mb > answers[1].cache_mb > 0


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("name", ["llava_next", "aya_vision"])
def test_every_method_chooses_as_hired_reduce_does(name: str, method: str) -> None:
    made, image = reader(name), picture(models.ALL[name].sizes[0])
    choice = made.choose(made.see(image), QUESTION, 0.3, method)
    with torch.inference_mode():
        expected = hired.reduce(made.loaded.model, plain(made, image), 0.3, method=method, images=[image]).selection[0]
    assert choice.selection.rows == expected.rows
    assert choice.selection.per_partition == expected.per_partition
    assert (choice.selection.content is None) == (expected.content is None)


def test_the_encoder_runs_once_a_picture(runs: Callable[[Any], list[int]]) -> None:
    made = reader()
    seen = runs(made.loaded.model)
    held = made.see(picture())
    assert len(seen) == 1
    for budget, method in ((0.2, "hired"), (0.7, "hired"), (9, "scope"), (1, "glean"), (0.2, "random")):
        for question in (QUESTION, "why?"):
            made.reduced(held, question, made.choose(held, question, budget, method))
            made.untouched(held, question)
    assert len(seen) == 1


def test_the_untouched_answer_is_made_once_a_question() -> None:
    made = reader()
    held = made.see(picture())
    assert not made.knows(held, QUESTION)
    first = made.untouched(held, QUESTION)
    assert made.knows(held, QUESTION)
    assert made.untouched(held, QUESTION) is first
    assert not made.knows(held, "why?")


def test_a_budget_of_one_is_the_untouched_answer() -> None:
    made = reader()
    held = made.see(picture())
    choice = made.choose(held, QUESTION, 1, "hired")
    assert choice.whole
    assert choice.selection.content is None  # as `hired.reduce` reports it
    assert made.reduced(held, QUESTION, choice) is made.untouched(held, QUESTION)


@pytest.mark.parametrize(
    ("question", "budget", "method", "kind", "word"),
    [
        ("", 0.2, "hired", InputsError, "empty"),
        (" \n", 0.2, "hired", InputsError, "empty"),
        ("<image>?", 0.2, "hired", InputsError, "<image>"),
        ("\udcff", 0.2, "hired", InputsError, "UTF-8"),
        (QUESTION, 0, "hired", BudgetError, "above 0"),
        (QUESTION, 1.5, "hired", BudgetError, "1.5"),
        (QUESTION, "many", "hired", BudgetError, "number"),
        (QUESTION, 0.0001, "hired", BudgetError, "leaves no token"),
        (QUESTION, 0.2, "better", BudgetError, "unknown method"),
    ],
)
def test_what_cannot_be_asked(question: str, budget: Any, method: str, kind: type[Exception], word: str) -> None:
    made = reader()
    held = made.see(picture())
    with pytest.raises(kind, match=word):
        made.choose(held, question, budget, method)


def test_a_fault_of_the_model_is_one_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = reader()
    held = made.see(picture())

    def broken(*_: object, **__: object) -> None:
        raise IndexError("no such layer")

    monkeypatch.setattr(greedy, "turn", broken)
    with pytest.raises(HiredError, match=r"cannot answer with 'llava_next'.*no such layer"):
        made.untouched(held, QUESTION)
    monkeypatch.undo()
    assert made.untouched(held, QUESTION).tokens  # and the model is free again


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for seed, path in enumerate(paths):
        picture(seed=seed).save(path)
    return [str(path) for path in paths]


def test_tabs_have_their_own_pictures(files: list[str]) -> None:
    tabs = Tabs(reader())
    mine, yours = tabs.see("a", files[0]), tabs.see("b", files[1])
    assert tabs.see("a", files[0]) is mine
    assert tabs.see("b", files[1]) is yours
    assert mine.picture.tobytes() != yours.picture.tobytes()
    assert tabs.see("c", files[0]) is not mine  # not even one picture is shared
    assert tabs.has("a", files[0])
    assert not tabs.has("a", files[1])
    assert tabs.see("a", files[2]) is not mine
    assert len(tabs) == 3


def test_a_closed_tab_leaves_nothing(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tabs = Tabs(made := reader())
    tabs.see("a", files[0])
    tabs.close("a")
    tabs.close("a")
    assert len(tabs) == 0
    see = made.see

    def closing(image: Image.Image) -> Any:
        tabs.close("a")
        return see(image)

    monkeypatch.setattr(made, "see", closing)  # the tab goes while its picture is encoded
    tabs.see("a", files[0])
    assert len(tabs) == 0


def test_of_many_tabs_the_oldest_lose_their_pictures_and_get_them_again(files: list[str]) -> None:
    tabs = Tabs(reader(), most=2)
    first = tabs.see("a", files[0])
    tabs.see("b", files[1])
    assert tabs.see("a", files[0]) is first  # used again: b is the oldest now
    tabs.see("c", files[2])
    assert len(tabs) == 2
    assert tabs.has("b", files[1])  # what it showed is still known
    assert tabs.see("a", files[0]) is first
    assert tabs.see("b", files[1]).picture.size == first.picture.size


def test_two_tabs_at_a_time(files: list[str]) -> None:
    made = reader()
    tabs = Tabs(made)
    alone = {path: made.untouched(tabs.see(path, path), QUESTION).text for path in files}
    assert len(set(alone.values())) > 1
    found: dict[str, list[str]] = {path: [] for path in files}

    def ask(path: str) -> None:
        for budget in (0.3, 1, 0.5, 1):
            seen = tabs.see(f"again {path}", path)
            choice = made.choose(seen, QUESTION, budget, "hired")
            said = made.reduced(seen, QUESTION, choice).text
            if choice.whole:
                found[path].append(said)

    threads = [threading.Thread(target=ask, args=(path,)) for path in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {path: [said] * 2 for path, said in alone.items()}


def test_pages_of_a_pdf(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    path = str(tmp_path / "two.pdf")
    picture((72, 72)).save(path, save_all=True, append_images=[picture((144, 72))], resolution=72)
    tabs = Tabs(reader())
    assert len(pages_of(path)) == 2
    assert tabs.see("a", path, 1).picture.size == (144, 144)
    assert tabs.see("a", path, 2).picture.size == (288, 144)
    for page in (0, 3):
        with pytest.raises(ImageError, match=f"no page {page}: the file has 2"):
            tabs.see("a", path, page)


def test_bad_pictures(tmp_path: Path) -> None:
    tabs = Tabs(reader())
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ImageError, match="not a picture"):
        tabs.see("a", str(tmp_path / "text.png"))
    with pytest.raises(ImageError, match="no longer here"):
        tabs.see("a", str(tmp_path / "gone.png"))


def an_answer(text: str = "42", **changes: Any) -> Answer:
    settings = {"tokens": 1234, "prompt_tokens": 1300, "first_token_ms": 1.5e3, "tokens_per_second": 7.25}
    return Answer(text=text, cache_mb=3.5, **{"peak_mb": None, **settings, **changes})


def test_what_is_shown_is_escaped() -> None:
    told = words.answers(an_answer("<script>\n\n& more"), None, "<b>0.2</b>", 12.3, "cpu", None)
    assert "<script>" not in told
    assert "<b>0.2" not in told
    assert "&lt;script&gt;<br><br>&amp; more" in told
    assert "\n" not in told  # a blank line would end the HTML in the middle of it
    assert words.problem("no\n\n<b>such\x1b thing") == (
        '<div class="hired-problem" role="alert">no &lt;b&gt;such? thing</div>'
    )


def test_what_is_shown_of_answers() -> None:
    told = words.answers(an_answer("a"), an_answer("b"), "budget 0.2, hired", 12.3, "cpu", 1299)
    for part in ("1,234", "1,500 ms", "7.2", "3.50 MB", "budget 0.2, hired", "12 ms", "1,299 positions"):
        assert part in told
    assert "GPU" not in told
    assert "positions" not in words.answers(an_answer(), None, "", 1, "cpu", 1300)
    on_gpu = words.answers(an_answer(peak_mb=2048.0), None, "", 1, "cuda", None)
    assert "peak GPU memory" in on_gpu
    assert "whole process" not in on_gpu


def test_sockets() -> None:
    with server.listen("127.0.0.1", 0) as held:
        number = held.getsockname()[1]
        with pytest.raises(HiredError, match=f"127.0.0.1:{number}.*--port"):
            server.listen("127.0.0.1", number)
    for host in ("192.0.2.1", "no such host", "a\x00b", "\udcff"):
        with pytest.raises(HiredError, match="cannot serve"):
            server.listen(host, 0)


def test_local_addresses() -> None:
    assert all(map(server.is_local, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(server.is_local, ("0.0.0.0", "::", "192.0.2.1", "127.example.org")))


Run = Callable[..., tuple[int, str, str]]


def test_without_gradio_the_command_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gradio" else find(name, *rest)
    )
    code, out, err = run("page")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "pip install gradio" in err


def test_a_port_in_use_is_told_before_the_model_is_loaded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "require", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, out, err = run("page", "--port", taken.getsockname()[1], "--model", "/no/such/model")
    assert (code, out) == (2, "")
    assert "cannot serve at 127.0.0.1" in err


def test_bad_models(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "require", lambda: None)
    code, out, err = run("page", "--port", 0, "--model", "/no/such/model")
    assert (code, out) == (2, "")
    assert "no model directory" in err
