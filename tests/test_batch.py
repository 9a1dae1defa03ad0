"""`hired batch`: a line for every answer and every failure, and nothing is run twice."""

import errno
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from hired import forms
from hired.cli import batch, records
from hired.cli.batch import found_in
from hired.errors import HiredError, InputsError, UnsupportedModelError

pytest.importorskip("matplotlib")
needs_pdf = pytest.mark.skipif(importlib.util.find_spec("pypdfium2") is None, reason="needs pypdfium2")

Run = Callable[..., tuple[int, str, str]]
ASKED = "What is TOTAL?"


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with pictures in it and below, and one that is cut."""
    monkeypatch.chdir(tmp_path)
    pages = [forms.page(seed).image for seed in forms.EVAL_SEEDS[:3]]
    (tmp_path / "in" / "below").mkdir(parents=True)
    pages[0].save("in/b.png")
    pages[1].save("in/below/a.JPG", "JPEG")
    pages[2].save("in/.hidden.png")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "in" / "b.png").read_bytes()[:200])
    return tmp_path


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions that the model is asked."""
    asked: list[str] = []
    real = batch.answer

    def answer(loaded: Any, pictures: Any, question: str, how: Any) -> Any:
        asked.append(question)
        return real(loaded, pictures, question, how)

    monkeypatch.setattr(batch, "answer", answer)
    return asked


def lines(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def start(run: Run, *words: object, asked: tuple[str, ...] = (ASKED,)) -> tuple[int, str, str]:
    questions = [part for question in asked for part in ("-q", question)]
    return run("batch", *words, *questions, "-o", "out.jsonl")


@pytest.mark.usefixtures("there")
def test_a_line_for_every_picture_and_question(run: Run) -> None:
    code, out, err = start(run, "in", asked=(ASKED, "What is TAX?", ASKED))
    assert (code, out, err) == (0, "out.jsonl: 4 answers\n", "")
    found = lines()
    assert [(line["picture"], line["question"]) for line in found] == [
        (picture, question) for picture in ("in/b.png", "in/below/a.JPG") for question in (ASKED, "What is TAX?")
    ]
    for line in found:
        alone = json.loads(run("ask", line["picture"], line["question"], "--json")[1])
        (image,) = alone["images"]
        assert line["answer"] == alone["answer"]
        assert {name: line[name] for name in ("size", "tokens_full", "tokens_kept")} == {
            name: image[name] for name in ("size", "tokens_full", "tokens_kept")
        }
        assert line["prompt_tokens"] == alone["prompt_tokens"]
        assert set(line["timings_ms"]) == {"preprocess", "encode", "select", "prefill", "decode"}
        assert (line["settings"]["model"], line["settings"]["budget"]) == ("tiny", 0.2)


@pytest.mark.usefixtures("there")
def test_what_is_done_is_not_run_again(run: Run, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(run, "in/b.png")[0] == 0
    assert start(run, "in", asked=(ASKED, "What is TAX?"))[:2] == (0, "out.jsonl: 3 answers, 1 there before\n")
    assert len(runs) == 4
    before = Path("out.jsonl").read_bytes()
    monkeypatch.setattr("hired.loading.load", lambda *_: pytest.fail("a model was loaded"))
    assert start(run, "in", "in/b.png")[:2] == (0, "out.jsonl: 0 answers, 4 there before\n")
    assert Path("out.jsonl").read_bytes() == before


@pytest.mark.usefixtures("there")
def test_bad_files_are_lines_and_not_the_end(run: Run, runs: list[str]) -> None:
    code, out, err = start(run, "missing.png", "cut.png", "in/notes.txt", "in/b.png", asked=(ASKED, "What is TAX?"))
    assert (code, out, err) == (1, "out.jsonl: 2 answers, 6 failed\n", "")
    assert ["answer" in line for line in lines()] == [False] * 6 + [True] * 2
    assert [line["error"].partition(":")[0] for line in lines()[:6:2]] == [
        "no such file",
        "cut.png is broken or truncated",
        "in/notes.txt is not a picture in a format that Pillow reads",
    ]
    Path("in/b.png").replace("cut.png")  # mended
    code, out, _ = start(run, "missing.png", "cut.png", "in/b.png", asked=(ASKED, "What is TAX?"))
    assert (code, out) == (1, "out.jsonl: 2 answers, 2 there before, 2 failed\n")
    assert len(runs) == 4
    assert sorted(line["picture"] for line in lines() if "error" in line) == ["missing.png"] * 2
    assert len(lines()) == 6


@pytest.mark.usefixtures("there")
def test_no_line_holds_a_password(run: Run) -> None:
    assert start(run, "http://me:secret@127.0.0.1:9/a.png")[:2] == (1, "out.jsonl: 0 answers, 1 failed\n")
    (line,) = lines()
    assert "secret" not in json.dumps(line)
    assert line["error"].startswith("cannot download http://")


@needs_pdf
@pytest.mark.usefixtures("there")
def test_pages_of_a_pdf_are_pictures_of_their_own(run: Run, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [Image.open("in/b.png"), Image.open("in/below/a.JPG")]
    pages[0].save("in/c.pdf", save_all=True, append_images=pages[1:], resolution=144)
    assert start(run, "in/c.pdf#2")[:2] == (0, "out.jsonl: 1 answer\n")
    assert start(run, "in")[:2] == (0, "out.jsonl: 3 answers, 1 there before\n")
    assert [line["picture"] for line in lines()] == ["in/c.pdf#2", "in/b.png", "in/below/a.JPG", "in/c.pdf#1"]
    assert start(run, "in/c.pdf#5")[0] == 1
    assert lines()[-1]["error"] == "in/c.pdf has no page 5: it has 2"
    monkeypatch.setattr("hired.loading.load", lambda *_: pytest.fail("a model was loaded"))
    assert start(run, "in", "in/c.pdf#1-2")[0] == 0
    assert len(runs) == 4


@needs_pdf
@pytest.mark.usefixtures("there")
def test_a_broken_pdf_is_one_line(run: Run) -> None:
    Path("x.pdf").write_bytes(b"%PDF-1.4\n")
    assert start(run, "x.pdf", "in/b.png")[:2] == (1, "out.jsonl: 1 answer, 1 failed\n")
    assert start(run, "x.pdf", "in/b.png")[:2] == (1, "out.jsonl: 0 answers, 1 there before, 1 failed\n")
    assert [(line["picture"], "error" in line) for line in lines()] == [("in/b.png", False), ("x.pdf", True)]


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("left", [1, 30, -1])
def test_a_torn_line_is_written_again(run: Run, runs: list[str], left: int) -> None:
    assert start(run, "in")[0] == 0
    whole = Path("out.jsonl").read_text()
    first, second = whole.splitlines()
    Path("out.jsonl").write_text(f"{first}\n{second}"[: len(first) + 1 + left] if left > 0 else f"{first}\n{second}")
    assert start(run, "in")[0] == 0
    assert len(runs) == (3 if left > 0 else 2)
    assert [line["answer"] for line in lines()] == [json.loads(line)["answer"] for line in (first, second)]
    start(run, "in", asked=("What is TAX?",))
    assert len(lines()) == 4


@pytest.mark.usefixtures("there")
def test_an_interruption_keeps_what_is_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = batch.answer, []

    def answer(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(batch, "answer", answer)
    assert start(run, "in")[0] == 130
    assert len(lines()) == 1
    assert start(run, "in")[:2] == (0, "out.jsonl: 1 answer, 1 there before\n")


@pytest.mark.usefixtures("there")
def test_answers_under_other_settings_are_not_mixed(run: Run) -> None:
    assert start(run, "in/b.png")[0] == 0
    before = Path("out.jsonl").read_bytes()
    for options, words in (
        (["--budget", 0.4], "budget 0.2 in place of 0.4"),
        (["--system", "Be brief."], "system None in place of 'Be brief.'"),
        (["--dpi", 72], "dpi 144.0 in place of 72.0"),
    ):
        code, out, err = start(run, "in/b.png", *options)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err
        assert "name another file" in err
    assert Path("out.jsonl").read_bytes() == before


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    "text", ["notes", "{}\n", "[1]\n", '{"picture": 1}\n', "\n\nx\n\n", '{"picture": "a"\n{"x": 1}\n']
)
def test_other_files_are_left_alone(run: Run, text: str) -> None:
    Path("out.jsonl").write_text(text)
    code, out, err = start(run, "in")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "holds no answers of hired batch" in err
    assert Path("out.jsonl").read_text() == text


@pytest.mark.usefixtures("there")
def test_bad_words_are_one_error_before_a_model_is_loaded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hired.loading.load", lambda *_: pytest.fail("a model was loaded"))
    Path("empty").mkdir()
    Path("bytes.jsonl").write_bytes(b"\xff\xfe")
    for words, said in (
        (["in", "-q", "x", "-o", "out.json"], "name a .jsonl file"),
        (["in", "-q", "x", "-o", "in"], "name a .jsonl file"),
        (["in", "-q", "x", "-o", "no/out.jsonl"], "there is no directory no"),
        (["in", "-q", "x", "-o", "bytes.jsonl"], "holds no answers"),
        (["empty", "-q", "x", "-o", "out.jsonl"], "empty holds no pictures"),
        (["-", "-q", "x", "-o", "out.jsonl"], "standard input"),
        (["in", "-o", "out.jsonl"], "--question"),
        (["in", "-q", "x"], "--out"),
        (["in", "-q", "x\udcff", "-o", "out.jsonl"], "UTF-8"),
        (["in", "-q", "x", "-o", "out.jsonl", "--dpi", "nan"], "dpi"),
    ):
        code, out, err = run("batch", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), words
        assert said in err
    assert not Path("out.jsonl").exists()


@pytest.mark.usefixtures("there")
def test_a_question_with_a_tag_ends_it_at_once(run: Run) -> None:
    code, _, err = start(run, "in", asked=("What is <image>?",))
    assert (code, err.count("\n")) == (2, 1)
    assert not Path("out.jsonl").exists()


@pytest.mark.usefixtures("there")
def test_errors_of_one_picture_and_of_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(error: HiredError) -> Callable[..., Any]:
        def fails(*_: Any) -> Any:
            raise error

        return fails

    monkeypatch.setattr(batch, "answer", answer(InputsError("too odd")))
    assert start(run, "in")[0] == 1
    assert [line["error"] for line in lines()] == ["too odd", "too odd"]
    monkeypatch.setattr(batch, "answer", answer(UnsupportedModelError("not this model")))
    assert start(run, "in") == (2, "", "hired: not this model\n")


@pytest.mark.usefixtures("there")
def test_a_disk_that_is_full_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records, "json", SimpleNamespace(loads=json.loads, dumps=fails))
    assert start(run, "in") == (2, "", "hired: cannot write out.jsonl: No space left on device\n")


def test_what_is_found(there: Path) -> None:
    assert found_in(["in", "in/b.png", "x#2", "http://h/a.png", "in/b.png"]) == [
        "in/b.png",
        "in/below/a.JPG",
        "x#2",
        "http://h/a.png",
    ]
    (there / "in" / "loop").symlink_to(there / "in")
    (there / "in" / ".git").mkdir()
    (there / "in" / ".git" / "x.png").write_bytes(b"")
    (there / "in" / "x.HEIC").write_bytes(b"")
    assert found_in(["in"]) == ["in/b.png", "in/below/a.JPG", "in/x.HEIC"]


@pytest.mark.usefixtures("there")
def test_the_exit_code_of_the_process() -> None:
    words = ["batch", "in/b.png", "cut.png", "-q", ASKED, "-o", "out.jsonl", "--max-new-tokens", "2"]
    done = subprocess.run([sys.executable, "-m", "hired.cli", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "out.jsonl: 1 answer, 1 failed\n", "")
