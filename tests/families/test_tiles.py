"""Tiles that come without the picture's size: into which grid was it cut?"""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)

import hired
from hired.errors import InputsError
from hired.families import family_of
from hired.families.tiles import grids_of, placeholder_runs
from hired.reduction import plan
from tests.support import models, pictures
from tests.support.tiny import SIDE

SIZES = [(300, 300), (900, 300), (300, 910), (640, 480), (480, 640), (1200, 290), (800, 640), (1000, 500), (210, 1100)]


def cut(image: Image.Image, side: int = 56) -> tuple[torch.Tensor, int]:
    made = GotOcr2ImageProcessorPil(size={"height": side, "width": side}, crop_to_patches=True, max_patches=12)
    found = made(images=[image], return_tensors="pt")
    return found["pixel_values"], int(found["num_patches"][0])


def canvas(size: tuple[int, int], tiles: int) -> tuple[int, int]:
    found: tuple[int, int] = get_optimal_tiled_canvas(size[::-1], (56, 56), tiles, tiles)
    return found


def photograph(size: tuple[int, int], seed: int) -> Image.Image:
    """Something smooth, with structure at every scale, as photographs have it."""
    rng = np.random.default_rng(seed)
    layers = np.zeros((size[1], size[0], 3))
    for cells in (2, 5, 12, 30):
        small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        layers += np.asarray(small.resize(size, Image.Resampling.BICUBIC), dtype=float) / cells**0.5
    return Image.fromarray((255 * (layers - layers.min()) / np.ptp(layers)).astype(np.uint8))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_tiles_show_tells_what_the_size_tells(size: tuple[int, int], seed: int, dtype: torch.dtype) -> None:
    pixels, count = cut(photograph(size, seed))
    by_size = grids_of([count], pixels, [size], canvas)
    columns, rows = get_optimal_tiled_canvas(size[::-1], (56, 56), 1, 12)
    assert by_size == [(rows, columns) if rows * columns > 1 else (0, 0)]
    assert grids_of([count], pixels.to(dtype), None, canvas) == by_size


@given(st.integers(16, 4000), st.integers(16, 4000), st.integers(2, 16))
@pytest.mark.parametrize("name", ["aya_vision", "cohere2_vision"])
def test_the_rule_limited_to_what_came_out_gives_the_same_grid(name: str, width: int, height: int, limit: int) -> None:
    """The inputs do not carry the processor's limit, only how many tiles there are."""
    rule = get_optimal_tiled_canvas
    if name == "cohere2_vision":
        pytest.importorskip("torchvision")
        from transformers.models.cohere2_vision import image_processing_cohere2_vision

        rule = image_processing_cohere2_vision.get_optimal_tiled_canvas
    columns, rows = rule((height, width), (56, 56), 1, limit)
    family: Any = family_of(models.shared(name))
    assert rows * columns == 1 or family.canvas((width, height), 56, rows * columns) == (columns, rows)


def test_a_blank_page_tells_nothing_and_its_size_does() -> None:
    blank = Image.new("RGB", (900, 300), "white")
    pixels, count = cut(blank)
    with pytest.raises(InputsError, match="pass images="):
        grids_of([count], pixels, None, canvas)
    assert grids_of([count], pixels, [(900, 300)], canvas) == [(2, 6)]


@pytest.mark.parametrize("name", ["internvl", "aya_vision", "cohere2_vision"])
def test_a_blank_page_is_reduced_with_images_and_refused_without(name: str) -> None:
    processor, model = models.processor(name), models.shared(name)
    blank = Image.new("RGB", (3 * SIDE, SIDE), "white")
    inputs = processor(text=[models.ALL[name].mark + "a"], images=[blank], return_tensors="pt")
    with pytest.raises(InputsError, match="pass images="):
        hired.reduce(model, inputs, 0.5)
    entry = hired.reduce(model, inputs, 0.5, images=[blank]).selection[0]
    assert entry.grid == (1, 3)
    assert entry.size == (3 * SIDE, SIDE)
    assert entry.boxes[1:] == [(SIDE * i, 0, SIDE * (i + 1), SIDE) for i in range(3)]


def test_images_that_the_tiles_were_not_made_from_are_refused() -> None:
    inputs = pictures.inputs("cohere2_vision", [[(3 * SIDE, SIDE)]])
    with pytest.raises(InputsError, match="is not cut into the 3 tiles"):
        hired.reduce(models.shared("cohere2_vision"), inputs, 0.5, images=[(2 * SIDE, 2 * SIDE)])


@pytest.mark.parametrize("name", ["internvl", "aya_vision", "cohere2_vision"])
def test_tiles_that_are_missing_or_too_many_are_refused(name: str) -> None:
    inputs: dict[str, Any] = dict(pictures.inputs(name, [[(3 * SIDE, SIDE)]]))
    pixels = inputs["pixel_values"]
    for wrong in (pixels[:-1], torch.cat((pixels, pixels[:1]))):
        with pytest.raises(InputsError, match="tiles"):
            plan(models.shared(name), {**inputs, "pixel_values": wrong}, 0.5)


def test_runs_of_placeholders() -> None:
    ids = torch.tensor([[7, 7, 1, 7, 2], [1, 2, 1, 2, 1], [1, 7, 7, 7, 7]])
    assert [(run.row, run.start, run.end, run.length) for run in placeholder_runs(ids, 7)] == [
        (0, 0, 2, 2),
        (0, 3, 4, 1),
        (2, 1, 5, 4),
    ]
