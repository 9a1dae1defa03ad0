"""Grids that proportions or separators tell, for LFM2-VL and Llama 4, against what their processors did."""

from typing import Any

import pytest
import torch

pytest.importorskip("torchvision")

import hired
from hired.errors import InputsError
from hired.families.lfm2_vl import _grid
from hired.reduction import plan
from tests.support import models, pictures

SIZES = [
    (width, height)
    for width, height in (
        (60, 60),
        (97, 64),
        (64, 97),
        (150, 40),
        (40, 150),
        (210, 90),
        (90, 210),
        (300, 31),
        (31, 300),
    )
]


def layouts(name: str, sizes: list[pictures.Size], **settings: Any) -> Any:
    return plan(models.shared(name), pictures.inputs(name, [sizes]), 0.3, **settings).layouts


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_lfm2_grids_are_those_of_its_processor(size: pictures.Size) -> None:
    made = models.processor("lfm2_vl").image_processor([[pictures.noise(size)]], return_row_col_info=True)
    grid = int(made["image_rows"][0]), int(made["image_cols"][0])
    both = [layouts("lfm2_vl", [size, (20, 20)], **given) for given in ({}, {"images": [size, (20, 20)]})]
    for cut, whole in both:
        assert cut.grid == (grid if grid != (1, 1) else (0, 0))
        assert whole.grid == (0, 0)
    assert both[1][0].size == size


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_llama4_grids_are_those_of_its_processor(size: pictures.Size) -> None:
    made = models.processor("llama4").image_processor([pictures.noise(size)], return_tensors="pt")
    rows, columns = (int(count) for count in made["aspect_ratios"][0])
    for given in ({}, {"images": [size, (20, 20)]}):
        cut, _ = layouts("llama4", [size, (20, 20)], **given)
        assert cut.grid == ((rows, columns) if rows * columns > 1 else (0, 0))


@pytest.mark.parametrize("name", ["lfm2_vl", "llama4"])
def test_pictures_of_other_proportions_are_refused(name: str) -> None:
    with pytest.raises(InputsError, match="give the pictures the inputs were made from"):
        layouts(name, [(150, 60)], images=[(60, 150)])


@pytest.mark.parametrize("shapes", [[(3, 3)] * 4, [(3, 3)] * 2, [(3, 3), (2, 4), (3, 3)], [(3, 3)] * 6])
def test_tiles_without_their_full_image_are_refused(shapes: list[tuple[int, int]]) -> None:
    with pytest.raises(InputsError, match="use_thumbnail"):
        _grid(shapes, 0)


def test_lfm2_without_tags_is_refused() -> None:
    processor = models.processor("lfm2_vl")
    inputs = processor(
        text="a<image>b", images=[[pictures.noise((150, 60))]], use_image_special_tokens=False, return_tensors="pt"
    )
    with pytest.raises(InputsError):
        hired.reduce(models.shared("lfm2_vl"), inputs, 0.3)


def test_lfm2_masks_that_do_not_fit_the_shapes_are_refused() -> None:
    inputs = dict(pictures.inputs("lfm2_vl", [[(20, 20)]]))
    for key, value in (
        ("spatial_shapes", inputs["spatial_shapes"] + 1),
        ("spatial_shapes", inputs["spatial_shapes"][:, :1]),
        ("pixel_attention_mask", torch.ones_like(inputs["pixel_attention_mask"])),
        ("pixel_attention_mask", None),
    ):
        with pytest.raises(InputsError, match="processor"):
            hired.reduce(models.shared("lfm2_vl"), {**inputs, key: value}, 0.3)
