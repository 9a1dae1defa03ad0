"""Options that all commands read alike, and what is said of prompts that are too long or hold tags."""

import json
import os
import runpy
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from hired import loading
from hired.bench.settings import Settings as BenchSettings
from hired.cli import output
from hired.cli.serve import with_full_dtypes
from hired.costs.tokens import max_positions
from hired.errors import BudgetError, HiredError, InputsError
from hired.loading import named
from hired.options import MOST_TOKENS, full_dtype, number
from hired.questions import check_tags, check_text
from tests.conftest import skipped
from tests.support.models import ALL, CASES, processor

ROOT = Path(__file__).parents[1]
NAMES = {"fp32": "float32", "float": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}
Run = Callable[..., tuple[int, str, str]]


class Seen(HiredError):
    """Ends a command once it has come far enough."""


@pytest.mark.parametrize("name", [*NAMES, *NAMES.values(), "BF16", "auto"])
@pytest.mark.parametrize("command", ["ask", "view", "eval", "bench", "bench --shape tiny", "plan"])
def test_every_command_knows_every_name_of_a_dtype(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    seen: list[str] = []

    def load(model: str, device: str = "auto", dtype: str = "auto", *_: Any) -> Any:
        seen.append(dtype)
        raise Seen

    def bench(settings: BenchSettings, tell: Any, measured: Any) -> Any:
        settings.check()
        seen.append(settings.dtype)
        raise Seen

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr("hired.bench.run.bench", bench)
    Image.new("RGB", (8, 8)).save(tmp_path / "page.png")
    words = {
        "ask": ["ask", tmp_path / "page.png", "What?"],
        "view": ["view", tmp_path / "page.png", "-o", tmp_path / "out.png"],
        "plan": ["plan", "tiny", "--json"],
    }.get(command, command.split())
    code, out, _ = run(*words, "--dtype", name)
    if command == "plan":
        assert code == 0
        seen.append(json.loads(out)["request"]["dtype"])
    wanted = NAMES.get(name.lower(), name)
    assert seen == ["float32" if command == "plan" and wanted == "auto" else wanted]


def test_unknown_dtypes_stay_as_they_are() -> None:
    assert full_dtype("int3") == "int3"
    assert full_dtype("nf4") == "int4"


def test_a_servers_dtype_is_translated_and_nothing_else() -> None:
    words = ["tiny", "--dtype", "fp16", "--port", "fp16", "--dtype=bf16", "--other=bf16", "half"]
    assert with_full_dtypes(words) == ["tiny", "--dtype", "float16", "--port", "fp16", "--dtype=bfloat16", *words[6:]]


@pytest.mark.parametrize("text", ["1e10", "1e300", "9" * 30, str(MOST_TOKENS + 1)])
def test_budgets_beyond_all_pictures_are_refused(text: str) -> None:
    with pytest.raises(BudgetError, match="no picture has that many tokens"):
        number(text)
    assert number(str(MOST_TOKENS)) == MOST_TOKENS


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "tiny", "--images", "1e20"],
        ["plan", "tiny", "--images", str(10**20)],
        ["plan", "tiny", "--batch", str(10**20)],
        ["plan", "tiny", "--context", str(10**20)],
        ["plan", "tiny", "--new-tokens", str(10**20)],
        ["plan", "tiny", "--image", "99999x99999"],
        ["plan", "tiny", "--encoder-budget", "1e308"],
        *(["plan", "tiny", "--tflops", value, "--bandwidth", "1"] for value in ("1e300", "nan", "inf", "-1", "1e-300")),
        *(["plan", "tiny", "--tflops", "1", "--bandwidth", value] for value in ("1e300", "nan", "inf", "-1", "1e-300")),
        ["plan", "tiny", "--memory", "9" * 400 + "GB"],
        ["plan", "tiny", "--ttft", "9" * 400 + "s", "--calibrate"],
        *(["bench", f"--{name}", str(10**12)] for name in ("text-tokens", "new-tokens", "repeats", "warmup", "batch")),
        *(["bench", f"--{name}", "1e12"] for name in ("text-tokens", "new-tokens", "repeats", "warmup", "batch")),
        *(["bench", "--encoder-budget", value] for value in ("1e308", "inf", "nan", "0")),
        ["bench", "--image", "99999x99999"],
        *(["eval", f"--{name}", str(10**12)] for name in ("limit", "batch-size", "budgets")),
        *(["eval", "--encoder-budget", value] for value in ("1e308", "inf", "nan", "0")),
        ["ask", "page.png", "What?", "--max-new-tokens", str(10**12)],
        ["ask", "page.png", "What?", "--budget", "1e300"],
    ],
)
def test_absurd_numbers_are_one_error_before_any_work(
    run: Run, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise AssertionError("worked with an absurd number")

    for work in ("hired.loading.load", "hired.bench.run.bench", "hired.costs.rates.calibrate"):
        monkeypatch.setattr(work, fails)
    monkeypatch.setattr("hired.costs.shapes.meta_model", fails)
    code, out, err = run(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert len(err) < 1100


def test_a_question_that_is_not_text_is_refused() -> None:
    check_text("ÄÖ 図 \x00 ok")
    with pytest.raises(InputsError, match="UTF-8"):
        check_text("a\udcffb")


@pytest.mark.parametrize("name", list(ALL))
def test_a_question_may_hold_no_tag_of_the_prompt(name: str) -> None:
    its = processor(name)
    tags = {tag for tag in (its.image_token, *its.tokenizer.all_special_tokens) if tag.strip()} - {"<unk>"}
    assert {"</s>", its.image_token} < tags
    for tag in tags:
        with pytest.raises(InputsError, match=r"the question holds"):
            check_tags(its, f"What is {tag}?")
    for words in ("What is <b>?", "What is on TILE 3?", "image", "a < b > c", "", "<unk>", "\n"):
        check_tags(its, words)


def test_a_question_with_a_tag_is_one_error_before_the_model_runs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES["llava_next"]
    monkeypatch.setattr(named, "_tiny", lambda device, dtype: (case.model(), case.processor("left")))
    Image.new("RGB", (64, 48)).save(tmp_path / "page.png")
    code, out, err = run("ask", tmp_path / "page.png", "What is <image>?")
    assert (code, out) == (2, "")
    assert err == "hired: the question holds '<image>', which means something in this model's prompts: leave it out\n"


@pytest.mark.parametrize("length", [4_000, 15_000])
def test_a_long_question_is_drawn(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    case = CASES["llava_next"]
    model = case.model()
    model.config.text_config.max_position_embeddings = 100_000
    monkeypatch.setattr(named, "_tiny", lambda device, dtype: (model, case.processor("left")))
    Image.new("RGB", (64, 48)).save(tmp_path / "page.png")
    words = ["ask", tmp_path / "page.png", "ab c" * (length // 4), "--max-new-tokens", 1, "--view", tmp_path / "v.png"]
    code, _, err = run(*words)
    assert (code, err) == (0, "")
    with Image.open(tmp_path / "v.png") as drawn:
        assert max(drawn.size) < 4000


def test_positions_are_those_of_the_configuration() -> None:
    def config(**text: Any) -> Any:
        return SimpleNamespace(text_config=SimpleNamespace(**text))

    assert max_positions(config()) is None
    assert max_positions(config(max_position_embeddings=4096)) == 4096
    llama = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
    assert max_positions(config(max_position_embeddings=131072, rope_parameters=llama)) == 131072
    yarn = {"rope_type": "yarn", "factor": 4.0}
    assert max_positions(config(max_position_embeddings=32768, rope_parameters=yarn)) == 131072


@pytest.mark.parametrize("command", ["ask", "eval"])
def test_prompts_beyond_the_models_positions_are_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    pytest.importorskip("matplotlib")
    case = CASES["llava_next"]
    model = case.model()
    model.config.text_config.max_position_embeddings = 60
    monkeypatch.setattr(named, "_tiny", lambda device, dtype: (model, case.processor("left")))
    Image.new("RGB", (64, 64)).save(tmp_path / "page.png")
    words = {
        "ask": ["ask", tmp_path / "page.png", "a", "--max-new-tokens", 1, "--budget"],
        "eval": ["eval", "--limit", 2, "--methods", "hired", "--json", "--budgets"],
    }[command]
    code, out, err = run(*words, "1")
    assert code == 0
    assert out
    assert err.startswith("hired: warning: ")
    assert "the LLM was made for 60 positions" in err
    assert err.count("\n") == 1
    assert run(*words, "2")[::2] == (0, "")


def test_bench_tells_of_prompts_beyond_the_models_positions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hired.bench.run import bench

    small = {"shape": "tiny", "budgets": (1,), "images": ((96, 96),), "new_tokens": 2, "repeats": 1, "warmup": 0}
    monkeypatch.setattr("hired.bench.run.max_positions", lambda config: 100)
    bench(BenchSettings(**small, memory=False, device="cpu"), measured=output.warn_length)  # type: ignore[arg-type]
    assert "the LLM was made for 100 positions" in capsys.readouterr().err


def test_skipped_tests_are_explained_on_one_line() -> None:
    reasons = ["Skipped: the processor of x needs torchvision: run it"] * 1100
    reasons += ["Skipped: could not import 'torchvision': No module", "Skipped: needs a CUDA GPU", "Skipped: no luck"]
    assert skipped(reasons) == (
        "Skipped: 1,101 need torchvision (make test-families runs them); 1 need a CUDA GPU (tests/test_cuda.py runs"
        " where there is one); 1 for another reason (no luck)"
    )


def test_the_demo_ends_with_a_command_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["demo.py", "--pictures", "1"])
    runpy.run_path(str(ROOT / "examples" / "demo.py"), run_name="__main__")
    *start, ask, picture, question = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert ask == "ask"
    assert question.startswith("What is ")
    with Image.open(picture) as page:
        assert page.mode == "RGB"
    path = {**os.environ, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([*start, "--version"], env=path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("hired ")
