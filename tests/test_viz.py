"""The figure shows what the selection says."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hired
from hired.viz import draw, figure
from hired.viz import text as viz_text
from hired.viz.panels import heat_panel, token_panel
from hired.viz.text import ARROW, fitted, text_width
from tests.support.models import CASES

SIZES = [(60, 60), (90, 40), (31, 97), (20, 400), (400, 20), (8, 400), (1, 1), (700, 500)]


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(60, 200, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def selection(name: str, image: Image.Image, budget: float, **options: Any) -> Any:
    case = CASES[name]
    model, processor = case.model(), case.processor("left")
    inputs = processor(text=["<image>\nabc"], images=[image], return_tensors="pt")
    with torch.inference_mode():
        return hired.reduce(model, inputs, budget, images=[image], **options).selection[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", list(CASES))
def test_every_shape_can_be_drawn(name: str, size: tuple[int, int]) -> None:
    image = picture(*size)
    drawn = draw(image, selection(name, image, 0.2), note="What is it? " * 40)
    assert drawn.mode == "RGB"
    assert 300 <= max(drawn.size) <= 4200


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("method", ["hired", "uniform"])
@pytest.mark.parametrize("budget", [1.0, 0.5, 2])
def test_every_method_can_be_drawn(name: str, method: str, budget: float) -> None:
    image = picture(90, 70)
    draw(image, selection(name, image, budget, method=method))


def test_unknown_size_is_drawn_in_encoder_pixels() -> None:
    case = CASES["llava"]
    image = picture(90, 70)
    inputs = case.processor("left")(text=["<image>\nabc"], images=[image], return_tensors="pt")
    chosen = hired.reduce(case.model(), inputs, 0.3).selection[0]
    assert chosen.size is None
    draw(image, chosen)


def test_the_same_figure_every_time() -> None:
    image = picture(90, 70)
    first, second = (draw(image, selection("llava_next", image, 0.3)) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_the_picture_is_not_changed() -> None:
    image = picture(90, 70)
    before = image.tobytes()
    draw(image, selection("llava_next", image, 0.3))
    assert image.tobytes() == before


def test_kept_is_clear_and_dropped_is_veiled() -> None:
    image = picture(64, 64)
    cells = [(0, (x, y, x + 16.0, y + 16.0)) for y in range(0, 64, 16) for x in range(0, 64, 16)]
    kept = [cells[0], cells[5]]
    panel = token_panel(image, 1.0, {0: ((0, 0, 64, 64), 0, 0)}, cells, kept, 0, (255, 255, 255))
    shown, source = np.asarray(panel.image), np.asarray(image)
    inside = (slice(2, 14), slice(2, 14))
    assert np.array_equal(shown[inside], source[inside])
    for _, (x0, y0, x1, y1) in kept:
        assert panel.kept[int(y0) : int(y1), int(x0) : int(x1)].all()
    assert panel.kept.sum() == 2 * 16 * 16
    dropped = shown[32:48, 32:48].astype(float)
    assert dropped.std() < 0.4 * source[32:48, 32:48].std()


def test_tiles_stand_apart_and_padding_is_left_out() -> None:
    image = picture(60, 40)
    boxes = {1: (0.0, -10.0, 30.0, 50.0), 2: (30.0, -10.0, 60.0, 50.0)}
    places = {1: (boxes[1], 0, 0), 2: (boxes[2], 0, 1)}
    real = [(1, (0.0, 0.0, 30.0, 40.0)), (2, (30.0, 0.0, 60.0, 40.0))]
    panel = token_panel(image, 2.0, places, real, real, 10, (1, 2, 3))
    assert panel.image.size == (130, 80)
    assert panel.frames == {1: (0, 0, 60, 80), 2: (70, 0, 130, 80)}
    assert np.all(np.asarray(panel.image)[:, 60:70] == (1, 2, 3))


def test_what_no_token_shows_is_hatched() -> None:
    image = Image.new("RGB", (40, 40), (255, 0, 0))
    panel = token_panel(
        image, 1.0, {0: ((0, 10, 40, 30), 0, 0)}, [(0, (0, 10, 40, 30))], [(0, (0, 10, 40, 30))], 0, (0, 0, 0)
    )
    shown = np.asarray(panel.image)
    assert np.all(shown[12:28] == (255, 0, 0))
    assert len(np.unique(shown[:9].reshape(-1, 3), axis=0)) > 1


def test_heat_is_brightest_where_attention_is() -> None:
    content = np.zeros((4, 4))
    content[1, 2] = 1.0
    shown = np.asarray(heat_panel(Image.new("RGB", (80, 80), (255, 255, 255)), 1.0, content, {}).image)
    bright = np.unravel_index(shown.sum(-1).argmax(), shown.shape[:2])
    assert (bright[0] // 20, bright[1] // 20) == (1, 2)


def test_text_is_cut_to_fit() -> None:
    words = f"12 {ARROW} 3 " + "word " * 50
    assert text_width(fitted(words, 20, 300), 20) <= 300
    assert fitted("short", 20, 300) == "short"
    whole = "a b c d e f g h"
    for width in range(1, 200, 7):
        shown = fitted(whole, 20, width)
        assert shown == whole or shown.endswith("...")
        assert text_width(shown, 20) <= max(width, text_width("...", 20))


@pytest.mark.parametrize("length", [100, 4_000, 15_000, 1_000_000])
def test_long_text_is_cut_without_measuring_all_of_it(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def measure(words: str, size: int) -> int:
        measured.append(len(words))
        return text_width(words, size)

    monkeypatch.setattr(viz_text, "text_width", measure)
    shown = fitted("ab c" * (length // 4), 26, 1500)
    assert 80 < len(shown) <= min(length, 200)
    assert sum(measured) < 20_000


@pytest.mark.parametrize("size", [(400, 40), (600, 60), (300, 100), (40, 400), (60, 700)])
@pytest.mark.parametrize("budget", [0.1, 0.3, 1.0])
def test_nothing_is_written_on_a_strip(size: tuple[int, int], budget: float) -> None:
    image = picture(*size)
    chosen = selection("llava_next", image, budget)
    shown = np.asarray(draw(image, chosen, note="a note"))
    blocks, _, _ = figure._arranged(image, chosen)
    assert len(blocks) == 3 if budget < 1 else blocks
    for block in blocks:
        panel = np.asarray(block.panel.image)
        left = figure._MARGIN + block.x
        strip = shown[:, left : left + panel.shape[1]]
        tops = range(len(strip) - len(panel) + 1)
        assert any(np.array_equal(strip[top : top + len(panel)], panel) for top in tops)
        assert block.side or block.foot or not block.labels
