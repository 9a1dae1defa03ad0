"""The command line, on a model with random weights; the shipped one is tried in its own tests."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import hired
import hired.families
from hired.cli.app import number
from tests.support.models import CASES

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model and a few pictures."""
    path = tmp_path_factory.mktemp("cli")
    case = CASES["llava_next"]
    case.model().save_pretrained(path / "model")
    case.processor("left").save_pretrained(path / "model")
    Image.radial_gradient("L").resize((70, 50)).convert("RGB").save(path / "page.png")
    Image.new("RGB", (1, 1), (9, 9, 9)).save(path / "dot.png")
    Image.new("RGB", (12, 600), (200, 200, 200)).save(path / "receipt.png")
    Image.radial_gradient("L").convert("CMYK").save(path / "print.jpg")
    (path / "text.png").write_text("no picture")
    (path / "empty.png").write_bytes(b"")
    (path / "cut.png").write_bytes((path / "page.png").read_bytes()[:300])
    Image.new("1", (12_000, 12_000)).save(path / "bomb.png")
    (path / "hollow").mkdir()
    return path


def shell(*arguments: object, **options: Any) -> subprocess.CompletedProcess[Any]:
    command = [sys.executable, "-m", "hired.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=300, check=False, **options)


def ask(folder: Path, *arguments: object, image: str = "page.png") -> list[object]:
    return ["ask", folder / image, "What?", "--model", folder / "model", "--max-new-tokens", 5, *arguments]


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"hired {hired.__version__}\n", "")


COMMANDS = (
    "ask",
    "batch",
    "view",
    "page",
    "tune",
    "check",
    "models",
    "eval",
    "bench",
    "plan",
    "reproduce",
    "serve",
    "gguf",
)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help(run: Run, command: list[str]) -> None:
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    assert "Usage" in out


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; from hired.cli import main; main(['ask', '--help']); main(['--version']);"
        "print([m for m in ('torch', 'transformers', 'numpy', 'PIL', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_ask_prints_the_answer_and_one_line(run: Run, folder: Path) -> None:
    code, out, err = run(*ask(folder))
    assert (code, err) == (0, "")
    line = out.rstrip("\n").splitlines()[-1]
    for part in (" -> ", "visual tokens", "first token", "tokens/s", "peak"):
        assert part in line
    assert "\x1b" not in out


def test_ask_json(run: Run, folder: Path, tmp_path: Path) -> None:
    code, out, err = run(*ask(folder, "--json", "--budget", 0.4, "--view", tmp_path / "view.png"))
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert set(result) == {
        "answer",
        "model",
        "budget",
        "images",
        "prompt_tokens",
        "timings_ms",
        "peak_memory_mb",
        "versions",
    }
    assert result["budget"] == 0.4
    assert result["model"] == str(folder / "model")
    (image,) = result["images"]
    assert image["size"] == [70, 50]
    assert image["partitions"] == 1 + image["grid"][0] * image["grid"][1]
    assert image["tokens_kept"] == sum(image["per_partition"]) == int(0.4 * image["partitions"] * 16)
    assert image["tokens_kept"] < image["tokens_real"] < image["tokens_full"]
    assert result["prompt_tokens"] > image["tokens_kept"]
    assert set(result["timings_ms"]) == {"preprocess", "encode", "select", "prefill", "decode"}
    assert all(value >= 0 for value in result["timings_ms"].values())
    assert result["peak_memory_mb"] > 0
    assert {"hired", "torch", "transformers"} <= set(result["versions"])
    assert Image.open(tmp_path / "view.png").size[0] > 300


def test_streamed_and_json_answers_agree(run: Run, folder: Path) -> None:
    streamed = run(*ask(folder))[1].rstrip("\n").rsplit("\n", 1)[0].strip()
    assert streamed == json.loads(run(*ask(folder, "--json"))[1])["answer"]


@pytest.mark.parametrize("budget", ["1", "1.0", "0.2", "7", "100000"])
def test_budgets(run: Run, folder: Path, budget: str) -> None:
    (image,) = json.loads(run(*ask(folder, "--json", "--budget", budget))[1])["images"]
    whole = budget in ("1", "1.0", "100000")
    if whole:
        assert image["tokens_kept"] == image["tokens_full"]
    else:
        wanted = 7 if budget == "7" else int(0.2 * 16 * image["partitions"])
        assert image["tokens_kept"] == wanted


@pytest.mark.parametrize("image", ["dot.png", "receipt.png", "print.jpg"])
def test_unusual_pictures(run: Run, folder: Path, image: str) -> None:
    assert run(*ask(folder, "--variant", "published", image=image))[0] == 0


@pytest.mark.parametrize("name", list(CASES))
def test_view(run: Run, folder: Path, tmp_path: Path, name: str) -> None:
    model = folder / "model"
    if name != "llava_next":
        model = tmp_path / name
        CASES[name].model().save_pretrained(model)
        CASES[name].processor("left").save_pretrained(model)
    out = tmp_path / "out.png"
    code, said, err = run("view", folder / "page.png", "--model", model, "-o", out)
    assert (code, err) == (0, "")
    assert said.startswith(f"{out}: ")
    assert Image.open(out).mode == "RGB"


def test_models_lists_every_family(run: Run) -> None:
    code, out, _ = run("models")
    assert code == 0
    for name in CASES:
        assert any(name in family.model_types for family in hired.families.supported())
    assert "LlavaNextForConditionalGeneration" in out
    assert "LlavaForConditionalGeneration" in out


def test_a_pipe_gets_plain_output(folder: Path) -> None:
    arguments = ["ask", "-", "What?", "--model", folder / "model", "--max-new-tokens", 3, "--json"]
    done = shell(*arguments, input=(folder / "page.png").read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["images"][0]["size"] == [70, 50]


def test_an_error_in_a_shell_is_one_line(folder: Path) -> None:
    done = shell("ask", folder / "missing.png", "What?", text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("hired: no such file")


def check_error(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("hired: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err


@pytest.mark.parametrize("budget", ["0", "-1", "-0.2", "1.5", "nan", "inf", "True", "many", "", "0.001"])
@pytest.mark.parametrize("command", ["ask", "view"])
def test_bad_budgets(run: Run, folder: Path, tmp_path: Path, command: str, budget: str) -> None:
    arguments = ask(folder) if command == "ask" else ["view", folder / "page.png", "-o", tmp_path / "x.png"]
    if command == "view":
        arguments += ["--model", folder / "model"]
    check_error(run(*arguments, f"--budget={budget}"), "budget")
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--alpha", "1.5"], "alpha"),
        (["--alpha=-0.1"], "alpha"),
        (["--alpha", "nan"], "alpha"),
        (["--alpha", "much"], "alpha"),
        (["--variant", "better"], "variant"),
        (["--max-new-tokens", "0"], "max-new-tokens"),
        (["--device", "abacus"], "device"),
        (["--dtype", "int3"], "dtype"),
        (["--view", "/no/such/folder/x.png"], "/no/such/folder"),
        (["--view", "x.nothing"], "x.nothing"),
        (["--view", "/"], "cannot write"),
        (["--unknown"], "--unknown"),
        (["--model", "/no/such/model"], "no model directory"),
        (["--model", "./no/such/model"], "no model directory"),
        (["--model", ""], "name of the model is empty"),
    ],
)
def test_bad_options(run: Run, folder: Path, arguments: list[str], word: str) -> None:
    check_error(run(*ask(folder, *arguments)), word)


@pytest.mark.parametrize(
    ("image", "word"),
    [
        ("missing.png", "no such file"),
        ("hollow", "directory"),
        ("text.png", "not a picture"),
        ("empty.png", "empty"),
        ("cut.png", "truncated"),
        ("bomb.png", "pixels"),
    ],
)
def test_bad_pictures(run: Run, folder: Path, image: str, word: str) -> None:
    check_error(run(*ask(folder, image=image)), word)


def test_bad_urls_and_standard_input(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_error(run("ask", "http://127.0.0.1:9/x.png", "What?"), "cannot download")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    check_error(run("ask", "-", "What?"), "empty")


def test_bad_models(run: Run, folder: Path, tmp_path: Path) -> None:
    page = folder / "page.png"
    check_error(run("ask", page, "What?", "--model", folder / "hollow"), "config.json")
    check_error(run("ask", page, "What?", "--model", page), "is a file")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    check_error(run("ask", page, "What?", "--model", other), "bert", str(other), "known families", "`hired models`")
    (other / "config.json").write_text("{")
    check_error(run("ask", page, "What?", "--model", other), "cannot load")
    (other / "config.json").write_text((folder / "model" / "config.json").read_text())
    check_error(run("ask", page, "What?", "--model", other), "cannot load")


@pytest.mark.parametrize("arguments", [["ask"], ["ask", "x.png"], ["view", "x.png"], ["draw"], ["--nothing"]])
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    check_error(run(*arguments), "--help")


def test_no_command_prints_help(run: Run) -> None:
    code, out, _ = run()
    assert code == 0
    assert "Usage" in out


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("576", 576), ("0.2", 0.2), ("1.0", 1.0), ("x", "x"), ("2e-1", 0.2)]
)
def test_numbers(text: str, value: object) -> None:
    assert number(text) == value
    assert type(number(text)) is type(value)
