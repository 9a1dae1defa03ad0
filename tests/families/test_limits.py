"""Layouts from sizes alone, in families whose image processor has limits of its own."""

from typing import Any

import pytest

from hired.costs.shapes import meta_model
from hired.costs.tokens import image_layouts
from hired.errors import InputsError, UnsupportedModelError
from hired.families import FAMILIES, family_for
from hired.vllm.geometry import geometry_of, limits_of
from tests.support import models
from tests.support.pictures import noise

NAMES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl")
SIZES = [(64, 64), (90, 31), (31, 90), (20, 20), (1, 1), (200, 20), (640, 480), (63, 65)]


@pytest.mark.parametrize("name", NAMES)
def test_layouts_are_those_of_the_processors_output(name: str) -> None:
    model, processor = models.shared(name), models.processor(name)
    family, pictures = family_for(name), [noise(size, seed) for seed, size in enumerate(SIZES)]
    inputs = processor(text=models.ALL[name].mark * len(SIZES), images=pictures, return_tensors="pt")
    expected = family.layouts(model, inputs, SIZES)
    limits = limits_of(family, processor.image_processor, {})
    found = image_layouts(meta_model(model.config), SIZES, limits)
    assert list(map(facts, found)) == list(map(facts, expected))
    assert geometry_of(model.config, limits).largest.tokens_full == (7 * 4 if name == "internvl" else 64)


def facts(layout: Any) -> Any:
    return layout.partition.tolist(), layout.cell.tolist(), layout.cells, layout.grid, layout.boxes, layout.size


def test_without_limits_they_are_not_guessed() -> None:
    assert tuple(family.model_types[0] for family in FAMILIES if family.limited is not None) == (
        "internvl",
        *NAMES[:3],
    )
    for name in NAMES:
        with pytest.raises(UnsupportedModelError, match="not known without"):
            image_layouts(meta_model(models.shared(name).config), SIZES)
        with pytest.raises(UnsupportedModelError, match=r"the fewest and the most (pixels|tiles)"):
            geometry_of(models.shared(name).config)
    with pytest.raises(InputsError, match="aspect ratio"):
        image_layouts(meta_model(models.shared("qwen2_vl").config), [(2000, 9)], (1, 10_000))
