"""Compiled models, encoders and layers: the same choice and the same logits."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import hired
from hired.families import family_of
from tests.support import models, pictures
from tests.support.models import ALL

NAMES = ("llava_next", "idefics3")
"""One whose encoder is left early, one that is run as it is."""


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def tower_in_place(model: Any) -> None:
    tower = family_of(model).parts(model).tower
    name = next(name for name, part in model.base_model.named_children() if part is tower)
    setattr(model.base_model, name, torch.compile(tower, backend="eager"))


def tower_itself(model: Any) -> None:
    family_of(model).parts(model).tower.compile(backend="eager")


def layers_in_place(model: Any) -> None:
    layers = family_of(model).parts(model).layers
    for index, layer in enumerate(layers):
        layers[index] = torch.compile(layer, backend="eager")  # type: ignore[index]


def layers_themselves(model: Any) -> None:
    for layer in family_of(model).parts(model).layers:
        layer.compile(backend="eager")


def whole(model: Any) -> None:
    model.compile(backend="eager")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", [tower_in_place, tower_itself, layers_in_place, layers_themselves, whole])
def test_compiled(name: str, how: Any) -> None:
    model, sizes = ALL[name].model(), ALL[name].sizes
    inputs = pictures.inputs(name, [[sizes[0]], [sizes[1]]])
    expected = hired.reduce(models.shared(name), inputs, 0.4)
    if how is whole and name != NAMES[0]:
        pytest.skip("one is enough: it takes 20 s")
    how(model)
    with torch.no_grad():
        logits = models.shared(name)(**expected).logits
        plain = models.shared(name)(**inputs).logits
        torch.testing.assert_close(model(**inputs).logits, plain)
        reduced = hired.reduce(model, inputs, 0.4)
        assert [entry.rows for entry in reduced.selection] == [entry.rows for entry in expected.selection]
        torch.testing.assert_close(model(**reduced).logits, logits)
        with hired.enable(model, 0.4):
            torch.testing.assert_close(model(**inputs).logits, logits)
        torch.testing.assert_close(model(**inputs).logits, plain)
