"""``hired tune`` on a model with random weights."""

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hired.agreeing import QUESTIONS, answering
from hired.cli.samples import questions_in, read
from hired.errors import HiredError
from tests.support.models import CASES
from tests.support.pictures import noise

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, a folder of pictures, and lists of questions."""
    path = tmp_path_factory.mktemp("tune")
    case = CASES["llava_next"]
    case.model().save_pretrained(path / "model")
    case.processor("left").save_pretrained(path / "model")
    (path / "pictures").mkdir()
    for place, size in enumerate([(70, 50), (40, 90), (64, 64), (90, 31)]):
        noise(size, place).save(path / "pictures" / f"{place}.png")
    lines = [
        {"image": "pictures/0.png", "question": "a?", "answer": "x"},
        {"image": "pictures/0.png", "question": "b <i>?", "answer": ["x", "y"]},
        {"image": str(path / "pictures" / "1.png")},
    ]
    (path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (path / "questions.txt").write_text("c?\n\nd?\n")
    return path


def tune(folder: Path, *words: object, pictures: object = "list.jsonl") -> list[object]:
    short = ["--max-new-tokens", 3, "--budgets", "0.5,0.2", "--repeats", 0]
    return ["tune", folder / "model", folder / str(pictures), *short, *words]


def test_a_table_a_file_a_plot_and_a_page(run: Run, folder: Path, tmp_path: Path) -> None:
    out = [tmp_path / "out.json", tmp_path / "out.png", tmp_path / "out.html"]
    words = [word for path in out for word in ("-o", path)]
    code, printed, err = run(*tune(folder, "-q", "e?", "--repeats", 1, "--methods", "hired,scope", *words))
    assert (code, err) == (0, "")
    assert "3 questions about 2 pictures" in printed
    assert "same answer" in printed
    result = json.loads(out[0].read_text())
    assert [(row["method"], row["budget"]) for row in result["results"]] == [
        ("untouched", 1), ("hired", 0.5), ("hired", 0.2), ("scope", 0.5), ("scope", 0.2),
    ]  # fmt: skip
    assert [entry["question"] for entry in result["answers"]] == ["a?", "b <i>?", "e?"]
    assert result["results"][0]["known"] == 2
    assert set(result) >= {"model", "chosen", "code", "agree", "measure", "settings", "versions", "machine"}
    with Image.open(out[1]) as drawn:
        assert drawn.width > 600
    page = out[2].read_text()
    assert "b &lt;i&gt;?" in page
    assert "src=" in page
    assert not re.search(r'(src|href)="(?!data:)', page), "the page needs nothing else"
    for data in re.findall(r"base64,([^\"]+)", page):
        assert min(Image.open(io.BytesIO(base64.b64decode(data))).size) > 50
    assert len((tmp_path / "out.answers.jsonl").read_text().splitlines()) == 3


def test_json_and_nothing_else(run: Run, folder: Path) -> None:
    code, printed, err = run(*tune(folder, "--json", "--agree", "0.00001", "--measure", "similar"))
    assert (code, err) == (0, "")
    result = json.loads(printed)
    chosen = result["chosen"]
    assert chosen["similar"] == min(r["similar"] for r in result["results"][1:] if r["tokens"] == chosen["tokens"])
    assert result["code"] == f"inputs = hired.reduce(model, inputs, budget={chosen['budget']})"


def test_it_goes_on_where_it_stopped(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    original = answering.answered

    def stops(model: Any, processor: Any, samples: Any, *words: Any) -> Any:
        for sample, each in zip(samples, original(model, processor, samples, *words), strict=False):
            if len(asked) == 3:
                raise KeyboardInterrupt
            asked.append(sample.question)
            yield each

    words = tune(folder, "-o", tmp_path / "out.json")
    monkeypatch.setattr(answering, "answered", stops)
    assert run(*words)[0] == 130
    assert asked == ["a?", "b <i>?", QUESTIONS[0]]
    with open(tmp_path / "out.answers.jsonl", "a") as file:
        file.write('{"picture": "torn')
    asked.append("so that it does not stop")
    assert run(*words)[0] == 0
    assert asked[4:] == list(QUESTIONS[1:])
    whole = json.loads((tmp_path / "out.json").read_text())["results"]
    fresh = tune(folder, "-o", tmp_path / "fresh.json")
    assert run(*fresh)[0] == 0
    assert whole == json.loads((tmp_path / "fresh.json").read_text())["results"]


def test_changed_settings_do_not_mix(run: Run, folder: Path, tmp_path: Path) -> None:
    words = tune(folder, "-o", tmp_path / "out.json", "--limit", 1, "-q", "a?")
    assert run(*words)[0] == 0
    before = (tmp_path / "out.answers.jsonl").read_text()
    code, _, err = run(*words, "--alpha", 0.3)
    assert code == 2
    assert "with alpha 0.5 in place of 0.3" in err
    assert (tmp_path / "out.answers.jsonl").read_text() == before
    assert run(*words, "--limit", 2, "--agree", 0.5)[0] == 0  # more pictures, and another question of the rows
    assert (tmp_path / "out.answers.jsonl").read_text().startswith(before)


@pytest.mark.parametrize(
    "words",
    [
        ["--budgets", "1"],
        ["--budgets", "0.2,x"],
        ["--budgets", ","],
        ["--methods", "magic"],
        ["--methods", ","],
        ["--agree", "0"],
        ["--agree", "1.5"],
        ["--agree", "nan"],
        ["--measure", "much"],
        ["--limit", "0"],
        ["--dpi", "0"],
        ["-o", "out.txt"],
        ["-o", "/no/such/out.html"],
        ["--questions", "/no/such/file"],
        ["-q", "\udcff"],
        ["--load", "3bit"],
    ],
)
def test_bad_commands(run: Run, folder: Path, words: list[str]) -> None:
    code, printed, err = run(*tune(folder, *words))
    assert (code, printed) == (2, "")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[]", "line 1"),
        ("{", "line 1"),
        ('{"question": "a?"}', "line 1"),
        ('{"image": "pictures/0.png", "question": 3}', "question must be a text"),
        ('{"image": "pictures/0.png", "question": "a?", "answer": [1]}', "answer must be"),
        ('{"image": "pictures/none.png"}', "no such file"),
        ("", "holds no pictures"),
    ],
)
def test_bad_lists_are_told_before_a_model_is_loaded(
    run: Run, folder: Path, tmp_path: Path, line: str, says: str
) -> None:
    path = folder / "bad.jsonl"
    path.write_text(line)
    code, _, err = run("tune", "/no/such/model", path)
    assert code == 2
    assert says in err
    assert "model" not in err.replace(str(folder), "")


@pytest.mark.parametrize("out", ["pictures/0.png", "link.png"])
def test_what_is_read_is_not_written_over(run: Run, folder: Path, out: str) -> None:
    (folder / "link.png").unlink(missing_ok=True)
    (folder / "link.png").symlink_to(folder / "pictures" / "0.png")
    before = (folder / "pictures" / "0.png").read_bytes()
    code, _, err = run(*tune(folder, "-o", folder / out))
    assert code == 2
    assert "among what is read" in err
    assert (folder / "pictures" / "0.png").read_bytes() == before


def test_which_pictures_of_many_are_taken(folder: Path) -> None:
    few, more = (read([str(folder / "pictures")], ("a?",), limit, 144) for limit in (2, 3))
    assert len({sample.name for sample in few}) == 2
    assert {sample.name for sample in few} < {sample.name for sample in more}
    everything = read([str(folder / "pictures"), str(folder / "pictures" / "0.png")], ("a?", "b?"), None, 144)
    assert len(everything) == 8


def test_pages_of_pdfs_are_pictures(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    pages = [Image.new("RGB", (60, 40), colour) for colour in ("white", "red", "blue")]
    pages[0].save(tmp_path / "a.pdf", save_all=True, append_images=pages[1:])
    found = read([str(tmp_path / "a.pdf")], ("a?",), None, 72)
    assert [Path(sample.name).name for sample in found] == ["a.pdf#1", "a.pdf#2", "a.pdf#3"]


def test_questions(folder: Path) -> None:
    assert questions_in(None, ()) == QUESTIONS
    assert questions_in(folder / "questions.txt", ("b?", "c?")) == ("b?", "c?", "d?")
    with pytest.raises(HiredError, match="standard input"):
        read(["-"], ("a?",), None, 144)
