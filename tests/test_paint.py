"""Paint one cell of a picture: the token that `.selection` says shows it is the one whose feature changes most, and
whose score is made of the encoder's keys that change most.

The whole way is run: picture, processor, vision encoder, packer, selection. The encoder's attention is damped, as
random weights, unlike trained ones, carry a change to every patch at once.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hired.core.image import Attention
from hired.encoding.taps import Tap, tapping
from hired.families import family_of
from hired.reduction import ImageSelection, Plan, encode, plan
from tests.support import models
from tests.support.layouts import best_grid
from tests.support.reducing import resampled

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
    model, damped = models.ALL[name].model(), models.ALL[name].damped
    found = [value for key, value in family_of(model).parts(model).tower.named_parameters() if key.endswith(damped)]
    assert found
    for parameter in found:
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


def inputs_of(name: str, arrays: list[np.ndarray], *, together: bool = False) -> Any:
    """What the processor makes of the pictures, one a prompt, or all of them in one."""
    processor, mark = models.processor(name), models.ALL[name].mark
    images = [Image.fromarray(array) for array in arrays]
    text = [mark * len(arrays)] if together else [mark + "\nq"] * len(arrays)
    given = [images] if together else [[image] for image in images] if models.ALL[name].by_prompt else images
    return processor(text=text, images=given, return_tensors="pt")


class Keys(Tap):
    """Reads a layer's keys, (batch, heads, keys, d), in place of attention."""

    def read(self, query: Any, key: Any, mask: Any, scaling: Any, edges: Any = None) -> None:
        self.rows.append(key)


def run(
    name: str, arrays: list[np.ndarray], *, together: bool = False, **settings: Any
) -> tuple[list[torch.Tensor], list[torch.Tensor], Plan]:
    """(features of every picture, keys of every call of the layer that tells importance, the plan)."""
    planned = plan(model_of(name), inputs_of(name, arrays, together=together), 0.3, **settings)
    encoder = planned.encoder
    assert encoder is not None
    keys = Keys(encoder.attention(encoder.last), None)
    with tapping(encoder.tower, [keys]):
        features = encode(replace(planned, encoder=None), everything=True).features
    assert features is not None
    return features, keys.rows, planned


def check(name: str, size: tuple[int, int], *, together: bool = False, **settings: Any) -> Any:
    """Paints every token's cell that `.selection` names; returns the report on the picture.

    The picture has a prompt to itself, or, `together`, shares one with others.
    """
    pixels = structured(size)
    layout = run(name, [pixels] * (1 + together), together=together, **settings)[2].layouts[0]
    entry = ImageSelection.of(layout, None, Attention())
    assert entry.size == size
    tokens = []
    for token in entry.real_tokens:
        assert token.partition is not None
        if token.box is None:  # nothing but padding
            continue
        (x0, y0, x1, y1), whole = token.box, entry.boxes[token.partition]
        rows, columns = layout.cells_of(token.partition)
        area = (x1 - x0) * (y1 - y0) * rows * columns / ((whole[2] - whole[0]) * (whole[3] - whole[1]))
        if area > 0.45:  # a cell at the picture's edge may be mostly padding
            tokens.append(token)
    assert len(tokens) >= 0.5 * entry.tokens_real
    settings |= {"images": [size] * len(tokens)} if "images" in settings else {}
    plain, still, _ = run(name, [pixels] * len(tokens), together=together, **settings)
    changed, moved, planned = run(
        name, [painted(pixels, token.box) for token in tokens if token.box], together=together, **settings
    )
    encoder, family = planned.encoder, planned.family
    assert encoder is not None
    # Where keys change is where attention would be read: it must be pooled into the painted token's score.
    rows = [(one - other).norm(dim=-1) for one, other in zip(moved, still, strict=True)]
    scores = family.last_rows(rows, encoder, planned.layouts)
    full = [each[family.full_images(planned.layouts)] for each in rows] if family.batched else rows
    content = family.first_rows(full, encoder, planned.layouts)
    wrong = []
    for index, token in enumerate(tokens):
        assert token.partition is not None
        elsewhere = layout.partition != token.partition
        change = (changed[index] - plain[index]).flatten(1).norm(dim=-1)
        assert float(change.max()) > 0
        found = [int(change.masked_fill(elsewhere, -1).argmax())]
        found.append(int(layout.of_tokens(scores[index].sum(1)).masked_fill(elsewhere, -1).argmax()))
        if found != [token.row] * 2:
            wrong.append((token, found))
        cell = divmod(int(content[index].sum(0).argmax()), layout.cells[1])
        if token.partition == 0 and cell != token.cell:
            wrong.append((token, cell))
    assert not wrong
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


OTHERS = [(name, size) for name, case in models.ALL.items() if name not in models.LLAVAS for size in case.sizes]


@pytest.mark.parametrize(("name", "size"), OTHERS, ids=lambda value: value if isinstance(value, str) else str(value))
def test_every_other_family(name: str, size: tuple[int, int]) -> None:
    check(name, size, images=[size])


@pytest.mark.parametrize("name", [name for name in dict(OTHERS) if models.ALL[name].cut])
def test_every_other_familys_pictures_are_cut_in_several_ways(name: str) -> None:
    model, found = model_of(name), set()
    for size in models.ALL[name].sizes:
        layout = plan(model, inputs_of(name, [structured(size)]), 0.3, images=[size]).layouts[0]
        found.add((layout.grid, layout.cells))
    assert len(found) > 2
