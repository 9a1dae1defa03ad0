"""LLaVA-NeXT-Video: pictures stand as in LLaVA-NeXT; videos, and inputs that do not fit, are refused."""

from typing import Any

import pytest
import torch

import hired
from hired.core.layout import Layout
from hired.families import family_of
from tests.families.test_contract import refused
from tests.support import models, pictures

NAME = "llava_next_video"


def layouts(name: str) -> list[Layout]:
    model, sizes = models.shared(name), list(models.ALL[name].sizes)
    family = family_of(model)
    return family.layouts(model, family.blank_inputs(model, sizes), sizes)


def test_pictures_stand_as_in_llava_next() -> None:
    for one, other in zip(layouts(NAME), layouts("llava_next"), strict=True):
        assert torch.equal(one.partition, other.partition)
        assert torch.equal(one.cell, other.cell)
        assert (one.grid, one.boxes, one.tokens_full) == (other.grid, other.boxes, other.tokens_full)


def test_the_placeholders_are_those_of_pictures() -> None:
    model, inputs = models.shared(NAME), pictures.inputs(NAME, [[(90, 31)]])
    assert family_of(model).image_token(model) == model.config.image_token_id != model.config.video_token_id
    assert hired.reduce(model, inputs, 9).selection[0].tokens_kept == 9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixel_values_videos": torch.zeros(1, 2, 3, 32, 32)}, "videos are not supported"),
        ({"image_sizes": None}, "image_sizes is missing"),
        ({"image_sizes": torch.tensor([[31, 90], [31, 90]])}, "1 images in pixel_values but 2 in image_sizes"),
        ({"image_sizes": torch.tensor([[64, 64]])}, "too few partitions|no whole number of images"),
        ({"pixel_values": torch.zeros(1, 2, 3, 32, 32)}, "too few partitions"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change: dict[str, Any], words: str) -> None:
    inputs = {**pictures.inputs(NAME, [[(90, 31)]]), **change}
    found = refused(NAME, inputs)
    assert any(word in found for word in words.split("|")), found


def test_other_pictures_than_the_inputs_were_made_from_are_refused() -> None:
    assert "images= has sizes" in refused(NAME, pictures.inputs(NAME, [[(90, 31)]]), images=[(31, 90)])
