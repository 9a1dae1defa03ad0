"""Files are written whole or not at all, results are printed first, and what is read is not written over."""

import errno
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hired import files
from hired.cli import main
from hired.errors import HiredError
from hired.loading import named
from tests.support.models import CASES

pytest.importorskip("matplotlib")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a picture, and a random model in place of the one that ships."""
    case = CASES["llava_next"]
    model, processor = case.model(), case.processor("left")
    monkeypatch.setattr(named, "_tiny", lambda device, dtype: (model, processor))
    monkeypatch.chdir(tmp_path)
    Image.radial_gradient("L").resize((70, 50)).convert("RGB").save("page.png")
    return tmp_path


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is found full when everything has been written."""

    def fails(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".hired-")]


COMMANDS: dict[str, tuple[list[str], str]] = {
    "ask": (["ask", "page.png", "What?", "--max-new-tokens", "2", "--json", "--view"], "kept.png"),
    "view": (["view", "page.png", "-o"], "kept.png"),
    "eval": (["eval", "--limit", "1", "--budgets", "0.2", "--methods", "hired", "--json", "-o"], "rows.json"),
    "eval, plot": (["eval", "--limit", "1", "--budgets", "0.2", "--methods", "hired", "--json", "-o"], "rows.png"),
    "bench": (["bench", "--shape", "tiny", "--json", "-o"], "rows.json"),
    "bench, plot": (["bench", "--shape", "tiny", "--json", "-o"], "rows.png"),
    "plan": (["plan", "tiny", "--json", "-o"], "rows.json"),
    "check": (["check", "tiny", "--json", "-o"], "rows.json"),
    "tune": (
        ["tune", "tiny", "page.png", "-q", "What?", "--budgets", "0.2", "--repeats", "0", "--json", "-o"],
        "a.json",
    ),
    "tune, page": (
        ["tune", "tiny", "page.png", "-q", "What?", "--budgets", "0.2", "--repeats", "0", "--json", "-o"],
        "a.html",
    ),
}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench that measured."""
    rows = json.loads((Path(__file__).parents[1] / "benchmarks" / "speed-0.5b-cpu.json").read_text())
    monkeypatch.setattr("hired.bench.run.bench", lambda settings, tell, measured: rows)


@pytest.mark.usefixtures("full", "measured")
@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_full_disk_loses_neither_the_result_nor_the_file_that_was_there(run: Run, there: Path, name: str) -> None:
    words, file = COMMANDS[name]
    (there / file).write_bytes(b"good")
    code, out, err = run(*words, file)
    assert (code, err) == (2, f"hired: cannot write {file}: No space left on device\n")
    assert (there / file).read_bytes() == b"good"
    assert not leftovers(there)
    if name == "view":
        assert "visual tokens" in out
    else:
        assert json.loads(out)


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("name", list(COMMANDS))
def test_files_are_tried_before_the_work(run: Run, there: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise AssertionError("worked before the file was tried")

    for work in ("hired.loading.load", "hired.bench.run.bench", "hired.costs.shapes.config_of"):
        monkeypatch.setattr(work, fails)
    real = os.open

    def refuses(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_CREAT and Path(path).name.startswith(".hired-"):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuses)
    words, file = COMMANDS[name]
    assert run(*words, file) == (2, "", f"hired: cannot write {file}: Read-only file system\n")


@pytest.mark.usefixtures("measured")
def test_one_file_that_fails_keeps_no_other_from_being_written(
    run: Run, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise HiredError("cannot write rows.png: no")

    monkeypatch.setattr("hired.bench.plot.plot", fails)
    code, out, err = run("bench", "--shape", "tiny", "-o", "rows.png", "-o", "rows.json")
    assert (code, err) == (2, "hired: cannot write rows.png: no\n")
    assert "Whole answers, and memory" in out
    assert json.loads((there / "rows.json").read_text())["results"]


def test_a_result_nobody_can_read_is_written_all_the_same(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hired.cli.plan._print", fails)
    assert main(["plan", "tiny", "-o", "rows.json"]) == 2
    assert json.loads((there / "rows.json").read_text())["results"]


@pytest.mark.parametrize("name", ["page.png", "./page.png", "link.png", "chain.png", "hard.png", "up/../page.png"])
@pytest.mark.parametrize("command", ["view", "ask"])
def test_the_picture_that_is_read_is_not_written_over(run: Run, there: Path, name: str, command: str) -> None:
    (there / "link.png").symlink_to("page.png")
    (there / "chain.png").symlink_to(there / "link.png")
    (there / "hard.png").hardlink_to("page.png")
    (there / "up").mkdir()
    before = (there / "page.png").read_bytes()
    for source, out in (("page.png", name), (name, "page.png")):
        words = ["view", source, "-o", out] if command == "view" else ["ask", source, "What?", "--view", out]
        code, _, err = run(*words)
        assert (code, err.count("\n")) == (2, 1)
        assert "it is the picture that is read" in err
    assert (there / "page.png").read_bytes() == before


def test_a_picture_on_standard_input_is_not_written_over(
    run: Run, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("page.png") as file:
        monkeypatch.setattr("sys.stdin", file)
        code, _, err = run("view", "-", "-o", "page.png")
    assert code == 2
    assert "it is the picture that is read" in err


def test_a_new_file_has_the_permissions_that_others_get(there: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write(there / "new", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((there / "new").stat().st_mode) == 0o640


def test_a_file_keeps_its_permissions(there: Path) -> None:
    (there / "old").write_bytes(b"0")
    (there / "old").chmod(0o604)
    files.check_writable(there / "old")
    files.write(there / "old", b"1")
    assert stat.S_IMODE((there / "old").stat().st_mode) == 0o604
    assert (there / "old").read_bytes() == b"1"


def test_links_are_followed(there: Path) -> None:
    (there / "far").mkdir()
    (there / "far" / "file").write_bytes(b"0")
    for name, target in (("link", "far/file"), ("chain", "link"), ("dangling", "far/new")):
        (there / name).symlink_to(target)
        files.check_writable(there / name)
        files.write(there / name, name.encode())
        assert (there / name).is_symlink()
        assert (there / name).read_bytes() == name.encode()
    assert (there / "far" / "file").read_bytes() == b"chain"
    assert (there / "far" / "new").read_bytes() == b"dangling"
    assert not leftovers(there / "far")


def test_a_check_leaves_nothing_behind(there: Path) -> None:
    before = sorted(there.iterdir())
    files.check_writable(there / "new.json")
    assert sorted(there.iterdir()) == before


def test_an_interruption_leaves_nothing_behind(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    (there / "old").write_bytes(b"good")
    with pytest.raises(KeyboardInterrupt):
        files.write(there / "old", b"new")
    assert (there / "old").read_bytes() == b"good"
    assert not leftovers(there)


@pytest.fixture
def pipe(there: Path) -> Iterator[Path]:
    os.mkfifo(there / "pipe.json")
    return there / "pipe.json"


def test_a_pipe_is_written_to_directly(run: Run, pipe: Path) -> None:
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)) as reader:
        assert run("plan", "tiny", "-o", pipe)[0] == 0
        assert json.loads(reader.read())["model"] == "tiny"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_that_nobody_reads_does_not_hang(run: Run, pipe: Path) -> None:
    code, out, err = run("plan", "tiny", "--json", "-o", pipe)
    assert code == 2
    assert json.loads(out)["model"] == "tiny"
    assert err.startswith(f"hired: cannot write {pipe}: ")


@pytest.mark.skipif(sys.platform != "linux", reason="devices are named as on Linux")
def test_devices_are_written_to_directly(run: Run, there: Path) -> None:
    for name, code in (("null", 0), ("full", 2)):
        (there / f"{name}.json").symlink_to(f"/dev/{name}")
        assert run("plan", "tiny", "-o", f"{name}.json")[0] == code
        assert stat.S_ISCHR(Path(f"/dev/{name}").stat().st_mode)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x" * 300 + ".json", "File name too long"),
        ("x" * 5000 + ".json", "File name too long"),
        ("loop.json", "symbolic links"),
        ("page.png/x.json", "Not a directory"),
        ("no/x.json", "there is no directory no"),
        ("folder.json", "it is a directory"),
        ("a\0b.json", "null"),
    ],
)
def test_paths_that_cannot_be_written(run: Run, there: Path, name: str, words: str) -> None:
    (there / "loop.json").symlink_to("loop.json")
    (there / "folder.json").mkdir()
    for command in (["plan", "tiny"], ["eval"], ["bench"]):
        code, out, err = run(*command, "-o", name)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err
        assert len(err) < 300


def test_a_longest_name_is_no_trouble(run: Run, there: Path) -> None:
    name = "x" * 250 + ".json"  # 255 in all: no room to write beside it under a longer one
    assert run("plan", "tiny", "-o", name)[0] == 0
    assert json.loads((there / name).read_text())["model"] == "tiny"


@pytest.mark.parametrize("suffix", ["h5", "xbm", "palm", "nothing", "wmf"])
def test_formats_that_hold_no_such_picture_are_refused_before_the_work(run: Run, there: Path, suffix: str) -> None:
    code, out, err = run("view", "page.png", "-o", f"kept.{suffix}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert ".png" in err
    assert not (there / f"kept.{suffix}").exists()


def test_plots_without_matplotlib_are_refused_before_the_work(
    run: Run, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for command in ("eval", "bench"):
        code, _, err = run(command, "-o", "rows.png")
        assert code == 2
        assert "pip install matplotlib" in err


def test_ask_prints_the_answer_before_a_view_that_fails(run: Run, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise HiredError("cannot draw")

    monkeypatch.setattr("hired.viz.draw", fails)
    code, out, err = run(*COMMANDS["ask"][0], "kept.png")
    assert (code, err) == (2, "hired: cannot draw\n")
    assert set(json.loads(out)) > {"answer", "images"}


@pytest.mark.parametrize("code", [0, 2])
def test_an_answer_nobody_reads_is_drawn_all_the_same(there: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    if code:
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = os.pipe()
        os.close(reader)
    with open(descriptor, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert main(["ask", "page.png", "What?", "--max-new-tokens", "3", "--view", "kept.png"]) == code
    assert Image.open(there / "kept.png").mode == "RGB"
