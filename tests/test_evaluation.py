"""The evaluation: what is asked, what each method keeps, what comes out. Weights are random here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hired import forms, prompts
from hired.cli import main
from hired.errors import BudgetError, HiredError
from hired.evaluation import CHECKS, Settings, all_methods, checks, run, smaller
from hired.evaluation.plot import plot
from hired.evaluation.run import Row, evaluate
from hired.evaluation.samples import Sample, samples
from hired.methods import METHODS as registry
from hired.reduction import Plan, ReducedInputs, assemble, encode, plan, project
from tests.support.models import CASES, IMAGE_ID

METHODS = all_methods()


def planned(name: str, images: list[Image.Image], budget: float = 0.3) -> Any:
    case = CASES[name]
    processor = case.processor("left")
    words = ["<image>\n" + "ab" * (i + 1) for i in range(len(images))]
    inputs = processor(text=words, images=images, return_tensors="pt", padding=True)
    return plan(case.model(), inputs, budget, images=images), processor


def sample(ink: tuple[tuple[float, float, float, float], ...] = ()) -> Sample:
    image = Image.radial_gradient("L").resize((90, 60)).convert("RGB")
    return Sample(7, image, "What?", "1", ink)


def test_samples_come_from_the_seeds_set_aside() -> None:
    found = samples(Settings(limit=5))
    assert len(found) == 5
    assert all(s.seed in forms.EVAL_SEEDS for s in found)
    assert [s.seed for s in found] == [s.seed for s in samples(Settings(limit=5))]
    for s in found:
        page = forms.page(s.seed)
        values = {page.question(i): field.value for i, field in enumerate(page.fields)}
        assert values[s.question] == s.answer


def test_fonts_and_task_reach_the_generator() -> None:
    plain, unseen, dense = (
        samples(Settings(limit=2, **options)) for options in ({}, {"fonts": "unseen"}, {"task": "dense"})
    )
    assert plain[0].image.tobytes() != unseen[0].image.tobytes()
    assert len(dense[0].ink) > len(plain[0].ink)


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (500, 10), (10, 500), (1, 1), (640, 480)])
@pytest.mark.parametrize("tokens", [1, 2, 7, 30, 144, 551])
def test_smaller_fits_and_is_as_large_as_its_shape_allows(size: tuple[int, int], tokens: int) -> None:
    rows, columns = smaller.cells(size, tokens)
    assert 1 <= rows * columns <= tokens
    shape = size[1] / size[0]
    if tokens >= 30 and 0.5 < shape < 2:
        assert rows * columns >= 0.8 * tokens
        assert abs(rows / columns / shape - 1) < 0.3


@pytest.mark.parametrize("name", list(CASES))
def test_smaller_at_the_encoders_own_size_is_the_full_image(name: str) -> None:
    """With as many cells as one partition has, nothing is interpolated: the features are the encoder's."""
    image = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    made, processor = planned(name, [image])
    with torch.inference_mode():
        features = smaller.encode(made.model, processor, image, 16)
        theirs = encode(made, everything=True).features[0][:16]
    assert features.shape == theirs.shape
    assert torch.nn.functional.cosine_similarity(features, theirs).min() > 0.98


@pytest.mark.parametrize("name", list(CASES))
def test_smaller_inputs(name: str) -> None:
    images = [Image.new("RGB", (90, 60)), Image.new("RGB", (40, 80))]
    made = planned(name, images)[0]
    hidden = made.model.config.text_config.hidden_size
    features = [torch.zeros(5, hidden), torch.ones(9, hidden)]
    ready = smaller.inputs(made, features, 0)
    ids, mask = ready["input_ids"], ready["attention_mask"]
    assert (ids == IMAGE_ID).sum(1).tolist() == [5, 9]
    original = made.inputs["input_ids"]
    for row in range(2):
        words = ids[row][mask[row].bool()]
        before = original[row][made.inputs["attention_mask"][row].bool()]
        assert words[words != IMAGE_ID].tolist() == before[before != IMAGE_ID].tolist()
    assert mask[:, -1].all()
    out = made.model.generate(**ready, max_new_tokens=2, do_sample=False)
    assert out.shape[1] <= ids.shape[1] + 2


def with_rows(made: Plan, rows: torch.Tensor | None) -> ReducedInputs:
    encoded = encode(made, everything=True)
    return assemble(made, encoded, [rows], project(made, encoded, [rows]))


def test_no_newlines_drops_exactly_the_newlines() -> None:
    made, _ = planned("llava_next", [sample().image])
    layout = made.layouts[0]
    rows = checks.no_newlines(layout)
    assert rows.numel() == layout.tokens_real < layout.tokens_full
    reduced = with_rows(made, rows)
    assert sum(reduced.selection[0].per_partition) == layout.tokens_real


def test_blank_half_spares_ink_and_newlines() -> None:
    made, _ = planned("llava_next", [sample().image])
    layout = made.layouts[0]
    page = sample(((20.0, 20.0, 50.0, 30.0),))
    blank = set(checks.blank(layout, page).tolist())
    rows = checks.blank_half(layout, page)
    gone = set(range(layout.tokens_full)) - set(rows.tolist())
    assert gone <= blank
    assert len(gone) == len(blank) // 2
    assert torch.equal(rows, checks.blank_half(layout, page))
    inked = [
        token
        for token in with_rows(made, None).selection[0].real_tokens
        if token.box and token.box[0] < 50 and token.box[2] > 20 and token.box[1] < 30 and token.box[3] > 20
    ]
    assert inked
    assert not blank & {token.row for token in inked}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return measured("llava_next", ("all", *CHECKS))


SOME = ("hired", "uniform", "random", "overview", "smaller", "published", *CHECKS)


def measured(name: str, methods: tuple[str, ...] = SOME, **options: Any) -> list[Row]:
    case = CASES[name]
    settings = Settings(budgets=(1, 0.25, 6), methods=methods, limit=5, batch_size=2, max_new_tokens=3, **options)
    return evaluate(case.model(), case.processor("left"), settings, prompts.prompt)


def test_rows(rows: list[Row]) -> None:
    assert [(row["method"], row["budget"]) for row in rows] == [
        *((method, budget) for method in METHODS for budget in (1, 0.25, 6)),
        ("blank-half", 1),
        ("no-newlines", 1),
    ]
    assert all(row["n"] == 5 and row["correct"] == round(row["exact_match"] * 5) for row in rows)
    tokens = {(row["method"], row["budget"]): row["tokens"] for row in rows}
    for method, known in registry.items():
        if not getattr(known, "exact", True):
            continue
        assert tokens[method, 6] == 6
        assert tokens[method, 0.25] == tokens["hired", 0.25]
    for budget in (1, 0.25, 6):
        assert tokens["smaller", budget] <= tokens["hired", budget]
    assert tokens["overview", 0.25] <= tokens["hired", 0.25]
    assert tokens["no-newlines", 1] < tokens["hired", 1]
    assert tokens["blank-half", 1] < tokens["hired", 1]
    for row in rows:
        assert 0 <= row["low"] <= row["exact_match"] <= row["high"] <= 1
        assert row["prompt"] > row["tokens"]
        assert (row["choose_ms"] is None) == (row["budget"] == 1 or row["method"] in (*CHECKS, "smaller"))
    text = {round(row["prompt"] - row["tokens"], 1) for row in rows}
    assert len(text) == 1, "the words of the prompts are the same under every method"


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (960, 1000, 0.946, 0.9704)]
)
def test_wilson(correct: int, n: int, low: float, high: float) -> None:
    """Against published values."""
    assert run.wilson(correct, n) == pytest.approx((low, high), abs=2e-4)


def untimed(rows: list[Row]) -> list[dict[str, Any]]:
    return [{**row, "choose_ms": None} for row in rows]


def test_the_same_numbers_every_time(rows: list[Row]) -> None:
    again = untimed(measured("llava_next", ("hired", "visionzip", "scope")))
    assert again == [row for row in untimed(rows) if row["method"] in ("hired", "visionzip", "scope")]


@pytest.mark.parametrize("options", [{"newlines": "keep"}, {"positions": "original"}, {"variant": "published"}])
def test_options_reach_the_reduction(options: dict[str, str]) -> None:
    assert len(measured("llava_next", **options)) == 20


def test_published_is_what_the_authors_code_keeps(rows: list[Row]) -> None:
    other = measured("llava_next", variant="published")
    mine = [{**row, "method": ""} for row in untimed(rows) if row["method"] == "published"]
    assert mine == [{**row, "method": ""} for row in untimed(other) if row["method"] == "hired"]
    assert mine != [{**row, "method": ""} for row in untimed(rows) if row["method"] == "hired"]


def test_an_encoder_budget_is_hireds_only(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = [], []
    for_many, for_one = run.encode_for, run.encode
    monkeypatch.setattr(run, "encode_for", lambda made, *words: [whole.append(made), for_many(made, *words)][1])
    monkeypatch.setattr(run, "encode", lambda made: [cut.append(made.encoder_budget), for_one(made)][1])
    narrowed = measured("llava_next", encoder_budget=1.5)
    assert {(row["method"], row["budget"], row["tokens"]) for row in narrowed} == {
        (row["method"], row["budget"], row["tokens"]) for row in rows if row["method"] in SOME
    }
    assert len(whole) == 3  # batches
    assert len(cut) == 6  # batches x budgets below 1
    assert all(budget is not None and budget.ratio == 1.5 for budget in cut)


def test_methods_of_the_callers_own_are_measured_beside(rows: list[Row]) -> None:
    case = CASES["llava_next"]
    settings = Settings(budgets=(0.25,), methods=("hired",), limit=5, batch_size=2, max_new_tokens=3)
    own = {"mine": registry["scope"](), "theirs": registry["visionzip"]()}
    found = evaluate(case.model(), case.processor("left"), settings, prompts.prompt, own=own)
    assert [row["method"] for row in found] == ["hired", "mine", "theirs"]
    for row, name in zip(untimed(found), ("hired", "scope", "visionzip"), strict=True):
        assert {**row, "method": name} in untimed(rows)


def test_single_partition_models_are_measured_too() -> None:
    assert len(measured("llava")) == 20


def test_a_right_answer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    truths = iter([s.answer for s in samples(Settings(limit=4))])
    monkeypatch.setattr("hired.evaluation.run.generate", lambda *_: [next(truths), "wrong"])
    case = CASES["llava_next"]
    settings = Settings(budgets=(0.3,), methods=("hired",), limit=4, batch_size=2)
    (row,) = evaluate(case.model(), case.processor("left"), settings, prompts.prompt)
    assert (row["correct"], row["n"]) == (1, 4)


@pytest.mark.parametrize(
    "options",
    [
        {"task": "essays"},
        {"fonts": "wild"},
        {"newlines": "some"},
        {"positions": "none"},
        {"variant": "best"},
        {"alpha": 2.0},
        {"encoder_budget": 0.5},
        {"encoder_budget": 1.5, "newlines": "keep"},
        {"encoder_budget": 1.5, "variant": "published"},
        {"budgets": (0.2, "x")},
        {"budgets": (0,)},
        {"budgets": ()},
        {"methods": ("magic",)},
        {"methods": ()},
        {"limit": 0},
    ],
)
def test_bad_settings(options: dict[str, Any]) -> None:
    with pytest.raises(BudgetError):
        Settings(**options).check()


def drawn(monkeypatch: pytest.MonkeyPatch, exact_match: float) -> np.ndarray:
    """The plot of one point, as pixels."""
    pixels: list[np.ndarray] = []

    def keep(figure: Any, path: Path) -> None:
        figure.canvas.draw()
        pixels.append(np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int))

    monkeypatch.setattr("hired.files.write_figure", keep)
    row = Row(
        method="uniform",
        budget=1,
        tokens=100.0,
        exact_match=exact_match,
        correct=1,
        n=1,
        low=0,
        high=1,
        prompt=110.0,
        choose_ms=None,
    )
    plot([row], Path("x.png"), "title with $ and {")
    return pixels[0]


@pytest.mark.parametrize("exact_match", [1.0, 0.0])
def test_markers_at_the_ends_of_the_scale_are_whole(monkeypatch: pytest.MonkeyPatch, exact_match: float) -> None:
    blue = np.array([0x19, 0x71, 0xC2])
    found, half = (int((np.abs(drawn(monkeypatch, share) - blue).sum(-1) < 30).sum()) for share in (exact_match, 0.5))
    assert found > 0.9 * half  # the axis or the dashed line may hide a little


@pytest.mark.parametrize("name", ["plot.png", "plot.svg"])
def test_plot(rows: list[Row], tmp_path: Path, name: str) -> None:
    plot(rows, tmp_path / name, "title")
    assert (tmp_path / name).stat().st_size > 5000
    with pytest.raises(HiredError):
        plot(rows, tmp_path / "no" / name, "title")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES["llava_next"]
    case.model().save_pretrained(tmp_path / "model")
    case.processor("left").save_pretrained(tmp_path / "model")
    words = ["eval", "--model", str(tmp_path / "model"), "--limit", "2", "--budgets", "1,0.2"]
    words += ["--methods", "hired,published"]
    out = tmp_path / "out.json"
    capsys.readouterr()
    assert main([*words, "--json", "-o", str(out), "-o", str(tmp_path / "out.png")]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert captured.err == ""
    assert result == json.loads(out.read_text())
    assert len(result["results"]) == 4
    assert set(result) == {"task", "model", "results", "settings", "versions", "machine", "seconds"}
    assert Image.open(tmp_path / "out.png").width > 600
    assert main(words) == 0
    assert "exact match" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["--task", "x"],
        ["--budgets", "0.2,x"],
        ["--budgets", ","],
        ["--methods", "x"],
        ["-o", "x.txt"],
        ["-o", "/no/such/x.json"],
        ["--limit", "0"],
        ["--batch-size", "0"],
        ["--alpha", "7"],
        ["--fonts", "x"],
    ],
)
def test_bad_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
