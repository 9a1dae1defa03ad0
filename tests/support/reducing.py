"""What the tests of reduction share."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.support import models
from tests.support.layouts import padding

NAMES = list(models.CASES)
N = (models.SIDE // models.PATCH) ** 2
MIXED = [[(64, 64), (96, 20)], None, [(20, 70)]]

each_family = pytest.mark.parametrize("name", NAMES)
every_family = pytest.mark.parametrize("name", list(models.LLAVAS))
"""With the families whose processors need torchvision."""


def partitions(entry: Any) -> int:
    return 1 + entry.grid[0] * entry.grid[1]


def resampled(name: str, entry: Any) -> bool:
    """Whether the tiny model makes fewer tokens than unpadded patches of the picture."""
    if name != "llava_onevision" or entry.grid == (0, 0):
        return False
    cells = models.SIDE // models.PATCH
    down, across = (count * cells for count in entry.grid)
    skip_y, skip_x = padding(*entry.size, down, across)
    most = int(models.MOST_PARTITIONS.rsplit("_", 1)[1]) * N
    return (down - 2 * skip_y) * (across - 2 * skip_x) > 1.1**2 * most


def budgeted(name: str, entry: Any) -> int:
    """Tokens that a share is a share of."""
    unpads = name in (*models.LLAVAS, "llava_next_video")
    if not unpads or resampled(name, entry):  # or everything counts
        return entry.tokens_real
    return partitions(entry) * N


def alone(inputs: Any, rows: Sequence[Sequence[Any] | None], index: int) -> dict[str, torch.Tensor]:
    """The inputs of one row of a batch made for `rows` of pictures, without padding of its ids."""
    ids = inputs["input_ids"][index][inputs["attention_mask"][index].bool()][None]
    found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    images = len(rows[index] or ())
    start = sum(len(row or ()) for row in rows[:index])
    if images:
        some = slice(start, start + images)
        found |= {key: inputs[key][some] for key in ("pixel_values", "image_sizes") if key in inputs}
        if "batch_num_images" in inputs:
            found["batch_num_images"] = torch.tensor([images])
    return found


def kept_rows(reduced: Any) -> list[list[int]]:
    return [entry.rows for entry in reduced.selection]


def image_tokens(model: Any, inputs: Any) -> list[int]:
    return (inputs["input_ids"] == model.config.image_token_id).sum(1).tolist()


def generate(model: Any, inputs: Any, **settings: Any) -> torch.Tensor:
    settings = {"max_new_tokens": 8, "do_sample": False, **settings}
    return model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :]
