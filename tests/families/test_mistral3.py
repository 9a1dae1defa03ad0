"""Mistral 3: what each token is pooled of, scores by picture out of one sequence, resized sizes, bad inputs."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d
from transformers import Mistral3Config, Mistral3ForConditionalGeneration, PixtralVisionConfig
from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size

import hired
from hired.errors import InputsError, UnsupportedModelError
from hired.families.mistral3 import Mistral3
from hired.reduction import encode, plan
from tests.families.test_contract import refused
from tests.support import models, pictures
from tests.support.cases.mistral3 import LONGEST, MERGE, PATCH

NAME = "mistral3"
FAMILY = Mistral3()
UNIT = PATCH * MERGE


def resized(size: tuple[int, int], longest: int, unit: int) -> tuple[int, int]:
    """(height, width), by the processor's own rule."""
    found: tuple[int, int] = get_resize_output_image_size(
        np.empty((0, size[1], size[0])), (longest, longest), (unit, unit), "channels_first"
    )
    return found


def given(*shapes: tuple[int, int]) -> dict[str, Any]:
    """What the processor returns for pictures resized to these (height, width)."""
    height, width = (max(lengths) for lengths in zip(*shapes, strict=True))
    return {"pixel_values": torch.empty(len(shapes), 3, height, width, device="meta"), "image_sizes": list(shapes)}


def test_scores_of_pictures_in_one_sequence_are_pooled_and_scaled_each_on_its_own() -> None:
    model = models.shared(NAME)
    encoder = FAMILY.parts(model)
    layouts = FAMILY.layouts(model, given((64, 24), (40, 48)), None)
    assert [layout.cells for layout in layouts] == [(8, 3), (5, 6)]
    torch.manual_seed(0)
    grids = [torch.rand(2, 16, 6), torch.rand(2, 10, 12)]
    rows = [torch.cat([grid.flatten(1) for grid in grids], 1)[None]]
    for found, grid in zip(FAMILY.first_rows(rows, encoder, layouts), grids, strict=True):
        expected = avg_pool2d(grid / grid.sum((1, 2), keepdim=True), MERGE).flatten(1)
        torch.testing.assert_close(found, expected)


def test_scores_are_those_of_eager_attention_whatever_the_pictures_around() -> None:
    model = models.ALL[NAME].model()
    together = pictures.inputs(NAME, [[(90, 31), (20, 20)], [(30, 80)]])
    found = encode(plan(model, together, 0.3)).attention
    model.set_attn_implementation("eager")
    for index, size in enumerate(together["image_sizes"].tolist()):
        pixels = together["pixel_values"][index : index + 1, :, : size[0], : size[1]]
        seen = model.model.vision_tower(pixels, image_sizes=[size], output_attentions=True).attentions
        for layer, rows in ((1, found[index].first), (2, found[index].last[0])):
            patches = seen[layer][0].mean(1).unflatten(-1, (size[0] // PATCH, size[1] // PATCH))
            torch.testing.assert_close(rows, avg_pool2d(patches, MERGE).flatten(1), atol=1e-6, rtol=1e-4)


def full_size() -> Any:
    """A model with the geometry of the released checkpoints, without weights."""
    vision = PixtralVisionConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=24,
        num_attention_heads=2,
        image_size=1540,
        patch_size=14,
    )
    text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 64, "head_dim": 32}
    with torch.device("meta"):
        return Mistral3ForConditionalGeneration(
            Mistral3Config(vision_config=vision, text_config={**text, "model_type": "mistral"})
        )


def test_the_geometry_of_the_released_checkpoints() -> None:
    model = full_size()
    encoder = FAMILY.parts(model)
    assert (encoder.states, encoder.first, encoder.last, encoder.cls) == ((24,), 1, 23, None)
    size = (4000, 3000)
    layout = FAMILY.layouts(model, given(resized(size, 1540, 28)), [size])[0]
    assert layout.cells == (42, 55)
    assert layout.token_box(56) == pytest.approx((4000 / 55, 3000 / 42, 8000 / 55, 6000 / 42))
    assert FAMILY.layouts(model, given(resized(size, 1540, 28)), None)[0].boxes == ((0.0, 0.0, 1540.0, 1176.0),)


def test_the_pictures_of_the_inputs_are_never_refused_and_others_mostly_are() -> None:
    model, random = full_size(), np.random.default_rng(0)
    said = []
    for _ in range(400):
        longest = int(random.choice([280, 1540, 3000]))
        width, height = (int(length) for length in random.integers(40, 4000, 2))
        if max(width, height) > 40 * min(width, height):
            continue
        inputs = given(resized((width, height), longest, 28))
        FAMILY.layouts(model, inputs, [(width, height)])
        try:
            FAMILY.layouts(model, inputs, [(height, width)])
        except InputsError as error:
            said.append(str(error))
        else:
            said.append("")
    assert 20 * said.count("") < len(said)  # nearly square ones
    assert all("images= holds a picture" in words for words in said if words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_sizes": None}, "image_sizes is missing"),
        ({"image_sizes": [[64, 24]]}, "2 images in pixel_values but 1 in image_sizes"),
        ({"image_sizes": "24"}, "must be (height, width) pairs"),
        ({"image_sizes": [[64, 24], [40, 0]]}, "without area"),
        ({"image_sizes": [[64, 24], [40, 84]]}, "which pixel_values"),
        ({"image_sizes": [[64, 24], [40, 44]]}, "as tokens of 8 x 8"),
        ({"image_sizes": [[64, 24], [40, 40]]}, "no whole number of images"),
        ({"pixel_values": torch.zeros(2, 1, 64, 48)}, "must be (images, 3, height, width)"),
        ({"pixel_values": torch.zeros(3, 64, 48)}, "must be (images, 3, height, width)"),
        ({"pixel_values": torch.zeros(2, 3, 56, 48)}, "which pixel_values"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change: dict[str, Any], words: str) -> None:
    inputs = pictures.inputs(NAME, [[(24, 64)], [(48, 40)]])
    assert inputs["image_sizes"].tolist() == [[64, 24], [40, 48]]
    assert words in refused(NAME, {**inputs, **change})


def test_other_pictures_than_the_inputs_were_made_from_are_refused() -> None:
    inputs = pictures.inputs(NAME, [[(90, 31)], [(20, 20)]])
    assert inputs["image_sizes"].tolist() == [list(resized(size, LONGEST, UNIT)) for size in ((90, 31), (20, 20))]
    assert hired.reduce(models.shared(NAME), inputs, 5, images=[(90, 31), (20, 20)]).selection[0].size == (90, 31)
    assert "images= holds a picture of 31 x 90" in refused(NAME, inputs, images=[(31, 90), (20, 20)])
    assert "images= holds a picture of 20 x 20" in refused(NAME, inputs, images=[(20, 20), (90, 31)])


@pytest.mark.parametrize(
    ("holder", "name", "value", "words"),
    [
        ("vision_config", "model_type", "siglip_vision_model", "known is 'pixtral'"),
        (None, "vision_feature_layer", 0, "not the output of one of 3"),
        (None, "vision_feature_layer", 4, "not the output of one of 3"),
    ],
)
def test_other_encoders_are_refused(holder: str | None, name: str, value: Any, words: str) -> None:
    model, inputs = models.ALL[NAME].model(), pictures.inputs(NAME, [[(64, 64)]])
    setattr(model.config if holder is None else getattr(model.config, holder), name, value)
    with pytest.raises(UnsupportedModelError, match=words):
        hired.reduce(model, inputs, 0.3)
