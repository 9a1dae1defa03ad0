"""The page in a real browser, with the shipped model behind it."""

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hired import forms
from hired.errors import UnsupportedModelError
from hired.families import family_of
from tests.page.conftest import SHOTS, WATCHED, Served, waited
from tests.support.watching import unnoticed

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
expect.set_options(timeout=30_000)

WIDE, NARROW = {"width": 1280, "height": 1000}, {"width": 400, "height": 900}


class Page:
    """A tab with the page."""

    def __init__(self, tab: Any, address: str) -> None:
        self.tab = tab
        self.wrong: list[str] = []
        self.asked: list[str] = []
        tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        tab.on("request", lambda request: self.asked.append(request.url))
        tab.goto(address)
        self.question = tab.get_by_label("Question")
        self.budget = tab.get_by_label("Budget, typed")
        self.slider = tab.get_by_label("range slider for Budget")
        self.method = tab.get_by_label("Method")
        self.message, self.answers = tab.locator("#message"), tab.locator("#answers")
        self.figure = tab.locator("#figure img")
        expect(self.question).to_be_visible()

    def give(self, file: Path) -> None:
        self.tab.set_input_files("input[type=file]", file)

    def clear(self) -> None:
        self.tab.get_by_label(re.compile("clear|remove", re.IGNORECASE)).first.click()

    def ask(self, words: str) -> None:
        self.question.fill(words)
        self.question.press("Enter")

    def rows(self) -> dict[str, tuple[str, str]]:
        """Both columns, by the row's name, once both answers are there."""
        expect(self.answers.locator("td").nth(1)).not_to_have_text("...")
        lines = [row.locator("th, td").all_inner_texts() for row in self.answers.locator("tr").all()]
        return {name: (untouched, reduced) for name, untouched, reduced in lines}

    def expect_budget(self, value: object, method: str = "hired") -> None:
        expect(self.answers.locator("th").nth(1)).to_have_text(f"budget {value}, {method}")


@pytest.fixture
def opened(browser: Any, served: Served) -> Iterator[Callable[..., Page]]:
    """Opens a tab; at the end no script of any has failed, and nothing was asked of another address."""
    contexts, tabs = [], []

    def open_one(view: dict[str, int] = WIDE) -> Page:
        contexts.append(browser.new_context(viewport=view))
        tabs.append(Page(contexts[-1].new_page(), served.address))
        return tabs[-1]

    yield open_one
    for context in contexts:
        context.close()
    for tab in tabs:
        assert tab.wrong == []
        elsewhere = [url for url in tab.asked if not url.startswith((f"{served.address}/", "data:", "blob:"))]
        assert elsewhere == []
    assert waited(lambda: len(served.tabs) == 0)


def field(page: forms.Page, number: int = 0) -> tuple[str, str]:
    """A question about a page, and the answer."""
    return f"What is {page.fields[number].key}?", page.fields[number].value


def test_both_answers_and_the_drawing(opened: Callable[..., Page], files: Path, pages: list[forms.Page]) -> None:
    page = opened()
    page.give(files / "a.png")
    expect(page.message).to_contain_text("the question is empty")
    expect(page.figure).to_be_visible()
    question, answer = field(pages[0])
    page.ask(question)
    rows = page.rows()
    assert rows[""] == ("untouched", "budget 0.2, hired")
    assert rows["answer"] == (answer, answer)
    full, kept = (int(text.replace(",", "")) for text in rows["visual tokens"])
    assert full > 4 * kept > 0
    assert float(rows["KV cache"][0].split()[0]) > 2 * float(rows["KV cache"][1].split()[0])
    assert all(text.endswith(" ms") for text in rows["first token"])
    expect(page.message).to_have_text("")
    expect(page.figure).to_have_attribute("alt", re.compile(f"{kept:,} of its {full:,} visual tokens"))
    page.tab.wait_for_timeout(500)  # for what fades
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.tab.screenshot(path=SHOTS / "wide.png", full_page=True)


def test_a_narrow_window(opened: Callable[..., Page], files: Path, pages: list[forms.Page]) -> None:
    page = opened(NARROW)
    page.give(files / "a.png")
    page.ask(field(pages[0])[0])
    page.rows()
    expect(page.figure).to_be_visible()
    assert page.tab.evaluate("() => document.documentElement.scrollWidth") <= NARROW["width"]
    page.tab.wait_for_timeout(500)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.tab.screenshot(path=SHOTS / "narrow.png", full_page=True)


def test_the_budget_moves_and_the_encoder_rests(
    opened: Callable[..., Page], served: Served, files: Path, pages: list[forms.Page]
) -> None:
    page = opened()
    runs: list[int] = []
    model = served.reader.loaded.model
    hook = family_of(model).parts(model).tower.register_forward_hook(unnoticed(lambda *_: runs.append(1)))
    try:
        page.give(files / "a.png")
        page.ask(field(pages[0])[0])
        page.rows()
        page.slider.focus()
        seconds = []
        for step in range(1, 9):
            start = time.perf_counter()
            page.tab.keyboard.press("ArrowRight")
            page.expect_budget(f"{0.2 + step / 100:g}")
            seconds.append(time.perf_counter() - start)
        expect(page.budget).to_have_value("0.28")
        page.budget.fill("100")
        page.budget.press("Enter")
        page.expect_budget(100)
        assert page.rows()["visual tokens"][1] == "100"
        page.budget.fill("0.5")
        page.budget.press("Tab")
        page.expect_budget(0.5)
        expect(page.slider).to_have_value("0.5")
        page.budget.fill("1")
        page.budget.press("Enter")
        page.expect_budget(1)
        assert len(set(page.rows()["visual tokens"])) == 1
    finally:
        hook.remove()
    assert len(runs) == 1
    print(f"seconds from a key to its answer: {sorted(round(each, 2) for each in seconds)}")
    assert sorted(seconds)[4] < 5  # less than one, where nothing else runs


def test_quick_moves_end_with_the_last_one(opened: Callable[..., Page], files: Path, pages: list[forms.Page]) -> None:
    page = opened()
    page.give(files / "a.png")
    page.ask(field(pages[0])[0])
    page.rows()
    box = page.slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.tab.mouse.move(box["x"] + 10, middle)
    page.tab.mouse.down()
    for step in range(40):
        page.tab.mouse.move(box["x"] + 10 + step * box["width"] / 50, middle)
    page.tab.mouse.up()
    last = page.slider.input_value()
    assert float(last) > 0.6
    page.expect_budget(last)
    page.tab.wait_for_timeout(1500)  # whatever else is under way
    page.expect_budget(last)
    assert page.budget.input_value() == last
    full, kept = (int(text.replace(",", "")) for text in page.rows()["visual tokens"])
    assert kept > 0.55 * full
    expect(page.figure).to_have_attribute("alt", re.compile(f" {kept:,} of its "))


def test_methods(opened: Callable[..., Page], files: Path, pages: list[forms.Page]) -> None:
    page = opened()
    page.give(files / "a.png")
    question, answer = field(pages[0])
    page.ask(question)
    page.rows()
    for name in ("glean", "overview"):
        page.method.click()
        page.tab.get_by_role("option", name=name, exact=True).click()
        page.expect_budget(0.2, name)
    assert page.rows()["answer"][0] == answer  # the untouched one, which no method changes


def test_errors_are_told_in_the_page(
    opened: Callable[..., Page], served: Served, files: Path, pages: list[forms.Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened()
    problem = page.message.get_by_role("alert")
    page.give(files / "bad.png")
    expect(problem).to_have_text("the given file is not a picture in a format that Pillow reads")
    page.clear()
    expect(page.message).to_have_text("")
    page.give(files / "a.png")
    expect(problem).to_contain_text("the question is empty")
    page.ask("What is <image>?")
    expect(problem).to_contain_text("<image>")
    page.ask(field(pages[0])[0])
    page.rows()
    expect(page.message).to_have_text("")
    for typed, word in (("1.5", "1.5"), ("0", "above 0"), ("many", "number"), ("0.0001", "leaves no token")):
        page.budget.fill(typed)
        page.budget.press("Enter")
        expect(problem).to_contain_text(word)
        expect(page.answers).to_have_text("")
    page.budget.fill("0.2")
    page.budget.press("Enter")
    page.rows()

    def cannot(*_: object) -> None:
        raise UnsupportedModelError("method <scope> is not for this family")

    monkeypatch.setattr(served.reader, "choose", cannot)
    page.tab.get_by_role("button", name="Ask").click()
    expect(problem).to_have_text("method <scope> is not for this family")


def test_the_keyboard_is_enough(opened: Callable[..., Page], files: Path, pages: list[forms.Page]) -> None:
    page = opened()
    page.give(files / "a.png")
    expect(page.figure).to_be_visible()
    keys = page.tab.keyboard
    question, answer = field(pages[0], 1)
    for _ in range(10):
        keys.press("Tab")
        if page.question.evaluate("box => box === document.activeElement"):
            break
    keys.type(question)
    keys.press("Enter")
    assert page.rows()["answer"][0] == answer
    keys.press("Tab")
    keys.press("ArrowLeft")
    page.expect_budget(0.19)
    keys.press("Tab")
    keys.press("ControlOrMeta+a")
    keys.type("0.3")
    keys.press("Tab")
    page.expect_budget(0.3)
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    keys.press("Enter")
    expect(page.answers.locator("th").nth(1)).not_to_have_text("budget 0.3, hired")


def test_two_tabs_are_told_apart_and_a_closed_one_is_let_go(
    opened: Callable[..., Page], served: Served, files: Path, pages: list[forms.Page]
) -> None:
    mine, yours = opened(), opened()
    mine.give(files / "a.png")
    yours.give(files / "b.png")
    shared = next(f.key for f in pages[0].fields for g in pages[1].fields if f.key == g.key and f.value != g.value)
    for page in (mine, yours):  # both at a time
        page.question.fill(f"What is {shared}?")
        page.question.press("Enter")
    for page, shown in ((mine, pages[0]), (yours, pages[1])):
        truth = next(f.value for f in shown.fields if f.key == shared)
        assert page.rows()["answer"][0] == truth
    assert len(served.tabs) == 2
    yours.tab.close()
    assert waited(lambda: len(served.tabs) == 1)
    mine.clear()
    expect(mine.answers).to_have_text("")
    assert waited(lambda: len(served.tabs) == 0)


def test_pages_of_a_pdf(opened: Callable[..., Page], files: Path, pages: list[forms.Page]) -> None:
    pytest.importorskip("pypdfium2")
    page = opened()
    number = page.tab.get_by_label("Page, of 2")
    page.give(files / "ab.pdf")
    expect(number).to_be_visible()
    page.ask(field(pages[0])[0])
    assert page.rows()["answer"][0] == field(pages[0])[1]
    page.question.fill(field(pages[1])[0])
    number.fill("2")
    number.press("Tab")
    expect(page.answers.locator("td").nth(1)).to_have_text(field(pages[1])[1])
    number.fill("3")
    number.press("Tab")
    expect(page.message).to_contain_text("there is no page 3: the file has 2")
    page.clear()
    page.give(files / "a.png")
    expect(page.figure).to_be_visible()
    expect(page.tab.get_by_label(re.compile("^Page"))).to_be_hidden()


def test_files_stay_in_a_folder_of_their_own(opened: Callable[..., Page], served: Served, files: Path) -> None:
    page = opened()
    page.give(files / "b.png")
    expect(page.figure).to_be_visible()
    kept = [path for path in served.folder.rglob("*") if path.is_file()]
    assert any(path.name == "b.png" for path in kept)
    assert served.folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("busy", [False, True])
def test_the_command_goes_nowhere_and_ends_while_a_tab_is_open(
    browser: Any, files: Path, pages: list[forms.Page], busy: bool
) -> None:
    command = [*WATCHED, "page", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            page = Page(browser.new_page(), process.stdout.readline().split()[0])
            page.give(files / "a.png")
            expect(page.figure).to_be_visible()
            page.ask(field(pages[0])[0])
            if not busy:
                page.rows()
            start = time.perf_counter()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (130, "")
    assert time.perf_counter() - start < 10
    page.tab.close()
