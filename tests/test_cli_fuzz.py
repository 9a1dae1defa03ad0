"""Any words on the command line end in exit code 0, or in 2 with one line: no traceback, no input written over.

The options come from the commands themselves, so a new one is tried without being named here. What takes long, running
a model above all, is replaced by what it would return; what is checked before it and printed after it is real.
"""

import contextlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, strategies
from hypothesis.strategies import DrawFn
from PIL import Image

import hired
from hired.agreeing.answering import Answered, Outcome
from hired.agreeing.timing import Cost
from hired.bench.rows import Row
from hired.checking.lines import Line
from hired.checking.run import Result
from hired.cli import main
from hired.cli.answering import Answer
from hired.cli.app import app
from hired.costs.rates import by_hand
from hired.gguf.llama import library
from hired.loading import named
from tests.support.models import CASES

pytest.importorskip("matplotlib")

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
ABSURD = ["nan", "inf", "-inf", "1e300", "1e12", "1e20", "-1", "0", "-0.0", "1e-320", "9" * 25, "9" * 5000, "", " "]
PLAIN = ["1", "2", "0.2", "0.5", "1.0", "576", "3", "100000", "1,0.2", "2e-1", "1_0", "٣"]
WORDS = ["x", ",", "1,,x", "auto", "tiny", "cpu", "cuda:99", "fp16", "float32", "half", "hired", "published", "dense"]
ODD = [
    "[bold]",
    "[/x]",
    "$x^{",
    "\udcff",
    "a\nb",
    "\x1b[31m",
    "ÄÖ 図",
    "--",
    "x" * 300,
    "<image>",
    "{}",
    "%s",
    "\u202e",
]
SIZES = ["64x64", "1x1", "99999x1", "99999x99999", "64x", "0x5", "64x64,32x99"]
UNITS = ["8GB", "1e9GB", "0GB", "9" * 400 + "GB", "2s", "500ms", "1min", "0s"]
PATHS = [
    *("page.png", "./page.png", "link.png", "text.png", "pipe", "folder", "missing.png", "no/such.json", "-", "~", "/"),
    *("out.json", "out.png", "OUT.SVG", "out.pdf", "out.gif", "out.xbm", "out.h5", "pipe.json", "pipe.png", "out"),
    *("x" * 300 + ".png", "x" * 251 + ".png", "y" * 300 + ".json", "\udcff.png", "/dev/null", "/dev/full", ".json"),
    *(
        "kept.json",
        "loop.json",
        "dangling.json",
        "folder/out.json",
        "~nobody/x.png",
        "https://",
        "ftp://x/" + "y" * 300,
    ),
]
OUTSIDE = {Path("/").resolve(), Path("~").expanduser().resolve()}
"""Folders that are too large to look for pictures in."""
KEPT = ("page.png", "text.png", "link.png")
VALUES = strategies.sampled_from([*ABSURD, *PLAIN, *WORDS, *ODD, *SIZES, *UNITS, *PATHS]) | strategies.text(max_size=6)


def likely(command: str, parameter: Any) -> list[str]:
    """Values that an option may well be given, so that commands get past their first check."""
    named = {
        "image": ["64x64", "64x64,32x99"] if command in ("plan", "bench") else ["page.png", "./link.png"],
        "batch": ["1,2"] if command == "bench" else ["2"],
        "view": ["out.png", "kept.gif"],
        "out": {
            "view": ["out.png", "out.webp"],
            "plan": ["out.json"],
            "batch": ["out.jsonl"],
            "tune": ["out.json", "out.html", "out.svg"],
            "check": ["out.json"],
        }.get(command, ["out.json", "o.json", "out.svg"]),
        "pictures": ["page.png", "./link.png"] if command == "ask" else ["page.png", "folder", "text.png"],
        "questions": ["What is TAX?", "ÄÖ [b] $x^{"],
        "system": ["Be brief."],
        "load": ["4bit", "8bit"],
        "dpi": ["72", "300"],
        "model": ["tiny"],
        "shape": ["tiny"],
        "memory": ["8GB", "1KiB", "9999TB"],
        "ttft": ["2s", "500ms"],
        "device": ["cpu", "auto"],
        "dtype": ["auto", "fp32", "bf16", "half"],
        "task": ["forms", "dense"],
        "fonts": ["train", "unseen"],
        "newlines": ["drop", "keep"],
        "positions": ["original"],
        "methods": ["hired,scope"] if command == "tune" else ["hired,published", "no-newlines"],
        "questions_file": ["text.png", "missing.txt"],
        "agree": ["0.9", "1"],
        "measure": ["exact", "similar"],
        "variant": ["paper", "published"],
        "question": ["What is TAX?", "q" * 4000, "ÄÖ [b] $x^{"],
        "budget": ["0.2", "576", "1", "1e9"],
        "budgets": ["1,0.2", "2", "1000000000"],
        "alpha": ["0", "0.3", "1"],
        "encoder_budget": ["2", "1e6"],
        "tflops": ["3", "1e9", "1e-6"],
        "bandwidth": ["3", "1e9", "1e-6"],
    }
    return named.get(parameter.name, ["2", "7", "10000"])


def takes(parameter: Any) -> bool:
    """Whether a command needs a parameter to run."""
    return bool(parameter.required or parameter.param_type_name == "argument")


@strategies.composite
def words(draw: DrawFn, command: str) -> list[str]:
    """A command, its arguments and some of its options: likely values, and any value in up to two places."""
    parameters = [parameter for parameter in COMMANDS[command].params if parameter.name != "help"]
    used = [p for p in parameters if takes(p) or draw(strategies.integers(0, 3)) == 0]
    if {"tflops", "bandwidth"} & {p.name for p in used} and draw(strategies.booleans()):
        used = [p for p in parameters if p in used or p.name in ("tflops", "bandwidth")]
    odd = draw(strategies.sets(strategies.sampled_from(used), max_size=2)) if used else set()
    given: list[str] = []
    for parameter in used:
        value = draw(VALUES if parameter in odd else strategies.sampled_from(likely(command, parameter)))
        option = parameter.opts[-1]
        if parameter.param_type_name == "argument":
            given.append(value)
        elif parameter.is_flag:
            given.append(draw(strategies.sampled_from([*parameter.opts, *parameter.secondary_opts])))
        else:
            given += draw(strategies.sampled_from([[option, value], [f"{option}={value}"]]))
    return [command, *given, *(["--unknown"] if draw(strategies.integers(0, 19)) == 13 else [])]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to be in, with a picture and traps; no model runs."""
    path = tmp_path_factory.mktemp("fuzz")
    Image.radial_gradient("L").resize((70, 50)).convert("RGB").save(path / "page.png")
    (path / "text.png").write_text("no picture")
    (path / "folder").mkdir()
    (path / "link.png").symlink_to("page.png")
    (path / "loop.json").symlink_to("loop.json")
    (path / "dangling.json").symlink_to("no/where.json")
    for name in ("pipe", "pipe.json", "pipe.png"):
        os.mkfifo(path / name)
    case = CASES["llava_next"]
    model, processor = case.model(), case.processor("left")
    picture = Image.open(path / "page.png")
    inputs = processor(text=["<image>\nabc"], images=[picture], return_tensors="pt")
    selection = hired.reduce(model, inputs, 0.2, images=[picture]).selection[0]
    times = dict.fromkeys(("preprocess", "encode", "select", "prefill", "decode"), 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("HOME", str(path))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
        patch.setattr(named, "_tiny", lambda device, dtype: (model, processor))
        patch.setattr("hired.viz.draw", lambda picture, chosen, note=None: Image.new("RGB", (400, 300)))
        answer = Answer("[b] \udcff 7", [selection], 9, 3, times)
        for name in ("ask.answer", "batch.answer", "compare.answer", "chat.follow"):
            patch.setattr(f"hired.cli.{name}", lambda *_, **__: answer)
        walk, read = os.walk, named._read
        patch.setattr(os, "walk", lambda top: iter(()) if Path(top).resolve() in OUTSIDE else walk(top))
        patch.setattr(named, "_read", lambda *a, **k: (model, processor) if a[1] == "tiny" else read(*a, **k))
        patch.setattr("hired.evaluation.run.evaluate", evaluated)
        patch.setattr("hired.bench.run.bench", benched)
        patch.setattr("hired.agreeing.answering.answered", answered)
        patch.setattr("hired.agreeing.timing.timed", lambda model, processor, about, settings, tell: costs(settings))
        patch.setattr("hired.checking.run.check", lambda *_: Result([Line("a [b] step", "ok", "\udcff")], {}, None))
        patch.setattr(
            "hired.costs.rates.calibrate",
            lambda config, dtype, device, batch, length: by_hand(config, dtype, batch, 1, 1),
        )
        yield path


def evaluated(model: Any, processor: Any, settings: Any, *_: Any) -> list[dict[str, Any]]:
    counts = {"tokens": 7.5, "exact_match": 1.0, "correct": 3, "n": 3}
    return [{"method": method, "budget": budget, **counts} for method, budget in settings.jobs()]


def answered(model: Any, processor: Any, samples: Any, settings: Any, advance: Any) -> list[Answered]:
    outcomes = [Outcome(f"[b] \udcff {place}", 9 - place, -0.5) for place, _ in enumerate([0, *settings.jobs()])]
    return [Answered(sample, outcomes[0], tuple(outcomes[1:])) for sample in samples]


def costs(settings: Any) -> list[Cost]:
    return [Cost(0.5, None, 7, None)] * (1 + len(settings.jobs()))


def benched(settings: Any, tell: Any, measured: Any) -> dict[str, Any]:
    if settings.llama:
        library()  # what is missing is found first
    numbers = dict.fromkeys(Row.__annotations__, 0.5)
    rows = [
        {
            **numbers,
            "budget": arm.budget,
            "encoder_budget": arm.encoder_budget,
            "image": list(scene.image),
            "batch": scene.batch,
            "status": "ok",
            "range": {},
            "tokens": 5,
        }
        for scene in settings.scenes()
        for arm in settings.arms()
    ]
    machine = {"cpu": "CPU", "device": "cpu", "dtype": "float32", "threads": 1}
    told = {"settings": asdict(settings), "machine": machine, "note": "random"}
    return {"subject": settings.subject, "results": rows, **told}


def no_number(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


@pytest.mark.parametrize("command", list(COMMANDS))
@given(data=strategies.data())
def test_any_words_end_well(folder: Path, command: str, data: Any) -> None:
    before = {name: (folder / name).read_bytes() for name in KEPT}
    given = data.draw(words(command))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(given)
    lines = [line for line in err.getvalue().splitlines() if not line.startswith("hired: warning: ")]
    assert code in ((0, 1, 2) if command == "batch" else (0, 2))
    assert len(lines) == (1 if code == 2 else 0)
    assert all(line.startswith("hired: ") and len(line) < 1100 for line in lines)
    if code == 0 and "--json" in given:
        json.loads(out.getvalue(), parse_constant=no_number)
    assert before == {name: (folder / name).read_bytes() for name in before}
    assert not list(folder.rglob(".hired-*"))
    for path in {path for path in folder.iterdir() if path.is_file()} - {folder / name for name in KEPT}:
        if path.suffix.lower() in (".json", ".jsonl"):
            whole = path.suffix.lower() == ".json"
            for text in [path.read_text()] if whole else path.read_text().splitlines():
                json.loads(text, parse_constant=no_number)
        path.unlink()
