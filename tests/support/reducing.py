"""What the tests of reduction share."""

from typing import Any

import pytest
import torch

from tests.support import models

NAMES = list(models.CASES)
N = (models.SIDE // models.PATCH) ** 2
MIXED = [[(64, 64), (96, 20)], None, [(20, 70)]]

each_family = pytest.mark.parametrize("name", NAMES)


def partitions(entry: Any) -> int:
    return 1 + entry.grid[0] * entry.grid[1]


def kept_rows(reduced: Any) -> list[list[int]]:
    return [entry.rows for entry in reduced.selection]


def image_tokens(model: Any, inputs: Any) -> list[int]:
    return (inputs["input_ids"] == model.config.image_token_id).sum(1).tolist()


def generate(model: Any, inputs: Any, **settings: Any) -> torch.Tensor:
    settings = {"max_new_tokens": 8, "do_sample": False, **settings}
    return model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :]
