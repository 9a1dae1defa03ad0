"""Paint one cell of a picture: the token that `.selection` says shows it is the one whose feature changes most.

The whole way is run: picture, processor, vision encoder, packer, selection. The encoder's attention is damped, as
random weights, unlike trained ones, carry a change to every patch at once.
"""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hired
from hired.reduction import encode, plan
from tests.support import models
from tests.support.layouts import best_grid
from tests.support.reducing import resampled

CELLS = models.SIDE // models.PATCH

GRIDS = {(h // models.SIDE, w // models.SIDE) for h, w in models.PINPOINTS}


def _sizes(pinpoints: list[list[int]]) -> list[tuple[int, int]]:
    """For every grid a picture that fills its canvas, a flatter and a narrower one, where the grid is chosen."""
    found = []
    for h, w in pinpoints:
        for size in ((w, h), (w, round(0.7 * h)), (round(0.7 * w), h), (w, h - 11), (w - 5, h)):
            if best_grid(*size, pinpoints) == (h, w):
                found.append(size)
    return found


SIZES = _sizes(models.PINPOINTS)


@cache
def model_of(name: str) -> Any:
    model = models.ALL[name].model()
    for key, parameter in model.model.vision_tower.named_parameters():
        if "out_proj" in key:
            parameter.data *= 0.02
    return model


def structured(size: tuple[int, int]) -> np.ndarray:
    """A picture with slow gradients, so that resizing keeps what it shows."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack([40 + 60 * x, 50 + 60 * y, 60 + 40 * (x + y) / 2], -1).astype(np.uint8)


def painted(pixels: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """The picture with a bright box over the pixels whose middle lies in `box`."""
    x0, y0, x1, y1 = (round(edge) for edge in box)
    result = pixels.copy()
    result[y0:y1, x0:x1] = 255 - result[y0:y1, x0:x1]
    return result


def run(
    name: str, arrays: list[np.ndarray], *, together: bool = False, **settings: Any
) -> tuple[Any, list[torch.Tensor]]:
    """(inputs, features of every picture), one picture a prompt, or all of them in one."""
    processor = models.processor(name)
    images = [Image.fromarray(array) for array in arrays]
    text = ["<image>" * len(arrays)] if together else ["<image>\nq"] * len(arrays)
    inputs = processor(text=text, images=[images] if together else images, return_tensors="pt")
    return inputs, encode(plan(model_of(name), inputs, 0.3, **settings), everything=True).features


def check(name: str, size: tuple[int, int], *, together: bool = False, **settings: Any) -> Any:
    """Paints every token's cell that `.selection` names; returns the report on the picture.

    The picture has a prompt to itself, or, `together`, shares one with others.
    """
    pixels = structured(size)
    inputs, (plain, *_) = run(name, [pixels] * (1 + together), together=together)
    entry = hired.reduce(model_of(name), inputs, 0.3, **settings).selection[0]
    assert entry.size == size
    partition = torch.full((entry.tokens_full,), -1)
    tokens = []
    for token in entry.real_tokens:
        assert token.partition is not None
        partition[token.row] = token.partition
        (x0, y0, x1, y1), whole = token.box, entry.boxes[token.partition]
        area = (x1 - x0) * (y1 - y0) * CELLS**2 / ((whole[2] - whole[0]) * (whole[3] - whole[1]))
        if area > 0.45:  # a cell at the picture's edge may be mostly padding
            tokens.append(token)
    assert len(tokens) >= 0.6 * entry.tokens_real
    _, changed = run(name, [painted(pixels, token.box) for token in tokens], together=together)
    wrong = []
    for token, features in zip(tokens, changed, strict=True):
        change = (features - plain).norm(dim=-1)
        assert float(change.max()) > 0
        change[partition != token.partition] = -1
        if int(change.argmax()) != token.row:
            wrong.append((token, int(change.argmax())))
    assert not wrong
    # What is reported as kept is named alike.
    named = {token.row: token for token in entry.real_tokens}
    assert all(named[token.row] == token for token in entry.tokens)
    return entry


def test_the_pictures_cover_every_grid_and_both_paddings() -> None:
    found = {(h // 32, w // 32) for h, w in (best_grid(*size, models.PINPOINTS) for size in SIZES)}
    assert found == GRIDS
    padded = [size for size in SIZES if list(size[::-1]) not in models.PINPOINTS]
    flat = [size for size in padded if [size[1], size[0]] < list(best_grid(*size, models.PINPOINTS))]
    narrow = [size for size in padded if size[0] < best_grid(*size, models.PINPOINTS)[1]]
    assert flat
    assert narrow


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_llava_next(size: tuple[int, int]) -> None:
    entry = check("llava_next", size)
    h, w = best_grid(*size, models.PINPOINTS)
    assert entry.grid == (h // models.SIDE, w // models.SIDE)


@pytest.mark.parametrize("size", [(32, 32), (64, 32), (32, 64), (90, 60), (50, 120)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_llava(size: tuple[int, int]) -> None:
    check("llava", size, images=[size])


ONEVISION = _sizes(models.ONEVISION_PINPOINTS)


@pytest.mark.parametrize("size", ONEVISION, ids=lambda size: f"{size[0]}x{size[1]}")
def test_llava_onevision(size: tuple[int, int]) -> None:
    entry = check("llava_onevision", size)
    assert entry.grid == tuple(edge // models.ONEVISION_SIDE for edge in best_grid(*size, models.ONEVISION_PINPOINTS))
    assert resampled("llava_onevision", entry) == (entry._layout.mixing is not None)


@pytest.mark.parametrize("size", [(34, 34), (90, 60), (60, 90)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_llava_onevision_with_several_pictures_in_the_prompt(size: tuple[int, int]) -> None:
    assert check("llava_onevision", size, together=True).grid == (0, 0)
