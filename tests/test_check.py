"""``hired check``: green on every family, red where something is made wrong."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hired.checking import painting, peaked, pictures
from hired.checking import run as checking
from hired.checking.lines import FAILED, PASSED, TOLD
from hired.checking.run import check
from hired.families import family_of
from hired.reduction import encode, plan
from tests.support import models

Run = Callable[..., tuple[int, str, str]]

STEPS = ["family", "encoder", "pictures", "all tokens", "budgets", "features", "answers", "painted cells", "attention"]


def states(result: checking.Result) -> dict[str, str]:
    return {line.name: line.state for line in result.lines}


@pytest.mark.parametrize("name", list(models.ALL))
def test_it_works_on_every_family(name: str) -> None:
    steps: list[str] = []
    result = check(models.shared(name), models.processor(name), steps.append)
    assert result.works, [line for line in result.lines if line.state == FAILED]
    assert steps == STEPS == [line.name for line in result.lines]
    assert set(states(result).values()) == {PASSED, TOLD}
    assert result.facts["model_type"] == name
    assert result.facts["cls"] == (family_of(models.shared(name)).parts(models.shared(name)).cls is not None)
    assert result.peaked is not None
    assert 0 < result.peaked["mass"] <= 1


def test_the_model_is_left_as_it_was() -> None:
    model = models.ALL["llava_next"].model()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def hooks() -> list[int]:
        return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]

    check(model, models.processor("llava_next"))  # transformers leaves hooks of its own, once
    there, config = hooks(), model.generation_config
    check(model, models.processor("llava_next"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert hooks() == there
    assert model.generation_config is config


def swapped(layout: Any) -> Any:
    """A layout that takes each cell for its mirror image."""
    across = layout.cells[1]
    mirrored = layout.cell // across * across + (across - 1 - layout.cell % across)
    return replace(layout, cell=torch.where(layout.cell < 0, layout.cell, mirrored))


def test_cells_taken_for_others_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    family = type(family_of(models.shared("llava_next")))
    original = family.layouts
    monkeypatch.setattr(family, "layouts", lambda *words: [swapped(layout) for layout in original(*words)])
    result = check(models.shared("llava_next"), models.processor("llava_next"))
    assert states(result)["painted cells"] == FAILED
    assert not result.works


def test_features_of_other_tokens_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = checking.project
    monkeypatch.setattr(checking, "project", lambda *words: [rows.roll(1, 0) for rows in original(*words)])
    assert states(check(models.shared("llava"), models.processor("llava")))["all tokens"] == FAILED
    calls = []

    def second(*words: Any) -> Any:
        calls.append(words)
        found = original(*words)
        return found if len(calls) % 2 else [rows.roll(1, 0) for rows in found]

    monkeypatch.setattr(checking, "project", second)
    assert states(check(models.shared("llava"), models.processor("llava")))["features"] == FAILED


def test_a_budget_that_is_missed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "floor_share", lambda share, total: int(share * total) + 1)
    result = check(models.shared("llava"), models.processor("llava"))
    assert states(result)["budgets"] == FAILED
    assert "were to be kept" in result.lines[4].says


def test_what_a_checkpoint_raises_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: Any) -> Any:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(painting, "moved", broken)
    result = check(models.shared("llava"), models.processor("llava"))
    assert [(line.name, line.says) for line in result.lines if line.state == FAILED] == [
        ("painted cells", "ZeroDivisionError: by zero")
    ]
    monkeypatch.setattr(checking, "family_of", broken)
    assert states(check(models.shared("llava"), models.processor("llava"))) == {"family": FAILED}


@pytest.mark.parametrize("name", ["llava_next", "aya_vision"])
def test_peaks_are_measured_as_they_are_defined(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention put on writing, and nowhere else."""
    model, processor = models.shared(name), models.processor(name)
    original = encode

    def planted(made: Any, **options: Any) -> Any:
        found = original(made, **options)
        last = torch.full_like(found.attention[0].last, 0.25)
        last[:, :, 0] = 1.0
        return replace(found, attention=[replace(found.attention[0], last=last)])

    monkeypatch.setattr(peaked, "encode", planted)
    monkeypatch.setattr(peaked, "page", lambda *words: (pictures.page(*words)[0], [(-9.0, -9.0, 1.0, 1.0)]))
    found = peaked.measure(model, processor)
    image, _ = pictures.page((64, 64), 32, 0)
    made = plan(model, checking._inputs(model, processor, image), 2, images=[image])
    assert found.pictures == 16
    assert found.blind < found.ink  # the first cell of the full image and of the first tile
    assert 1 / made.layouts[0].cells_per_partition < found.mass < 1


def test_figures_of_the_small_models() -> None:
    told = peaked.small_models()
    assert list(told) == ["tiny", "tiny_aya"]
    for each in told.values():
        assert each.ink > 2 * each.blind, "trained encoders look at writing"


def test_pages_have_writing_where_they_say() -> None:
    for seed in range(5):
        image, boxes = pictures.page((300, 200), 96, seed)
        again, same = pictures.page((300, 200), 96, seed)
        assert image.tobytes() == again.tobytes()
        assert boxes == same
        assert boxes
        pixels = np.asarray(image).copy()
        paper = np.median(pixels.reshape(-1, 3), axis=0).astype(np.uint8)
        for x0, y0, x1, y1 in ((round(edge) for edge in box) for box in boxes):
            assert (pixels[y0:y1, x0:x1] != paper).any()
            pixels[y0:y1, x0:x1] = paper
        assert (pixels == paper).all()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check")
    case = models.ALL["llava_next"]
    case.model().save_pretrained(path)
    case.processor("left").save_pretrained(path)
    return path


def test_command(run: Run, saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    code, printed, err = run("check", saved, "--json", "-o", out)
    assert (code, err) == (0, "")
    result = json.loads(printed)
    assert result == json.loads(out.read_text())
    assert result["works"]
    assert set(result) == {"model", "load", "works", "lines", "facts", "peaked", "small_models", "versions", "machine"}
    assert result["versions"]["transformers"]
    code, printed, _ = run("check", saved, "--dtype", "bf16")
    assert code == 0
    assert "HiRED works" in printed
    assert "bfloat16 on cpu" in printed


def test_red_is_exit_code_1(run: Run, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painting, "moved", lambda *words: [False, True, False])
    code, printed, err = run("check", saved)
    assert (code, err) == (1, "")
    assert "does NOT work" in printed
    assert "1 of 3" not in printed
    assert "3 of 9 painted cells" in printed


def test_a_family_that_is_not_known_is_an_answer(run: Run, saved: Path, tmp_path: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "blip-2"}))
    code, printed, _ = run("check", tmp_path, "--json")
    assert code == 1
    assert json.loads(printed)["lines"][0]["state"] == "failed"


@pytest.mark.parametrize("words", [["/no/such"], ["tiny", "-o", "x.png"], ["tiny", "--load", "3bit"], []])
def test_bad_commands(run: Run, words: list[str]) -> None:
    code, printed, err = run("check", *words)
    assert (code, printed) == (2, "")
    assert err.count("\n") == 1
