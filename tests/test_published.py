"""The published variant against masks that the authors' own code printed, and inside `hired.reduce`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hired
from hired.reference import select
from tests.support import models, pictures

GOLDEN = Path(__file__).parent / "data" / "golden"
CASES = json.loads((GOLDEN / "golden.json").read_text())


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "golden.npz") as file:
        return dict(file)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_masks_equal_the_authors_bit_for_bit(
    case: dict[str, Any], dtype: torch.dtype, arrays: dict[str, np.ndarray]
) -> None:
    name = case["name"]
    first, last = (torch.from_numpy(arrays[f"{name}_{layer}"]).to(dtype) for layer in ("first", "last"))
    expected = torch.from_numpy(np.unpackbits(arrays[f"{name}_mask"], axis=-1, count=576).astype(bool))
    got = select(first, last, case["partitions"], case["budget"], case["alpha"])
    assert got.dtype == torch.bool
    assert got.shape == expected.shape == (sum(case["partitions"]), 576)
    assert torch.equal(got, expected)
    per_image = torch.split(got.sum(1), case["partitions"])
    assert [counts.tolist() for counts in per_image] == case["kept_per_partition"]
    assert [int(counts.sum()) for counts in per_image] == case["kept"]


def test_every_golden_array_is_used(arrays: dict[str, np.ndarray]) -> None:
    assert {name.rsplit("_", 1)[0] for name in arrays} == {case["name"] for case in CASES}
    assert len(CASES) >= 4


def test_several_images_are_selected_apart(arrays: dict[str, np.ndarray]) -> None:
    first, last = (torch.from_numpy(arrays[f"square20_{layer}"]) for layer in ("first", "last"))
    wide = [torch.from_numpy(arrays[f"wide_{layer}"]) for layer in ("first", "last")]
    both = select(torch.cat((first, wide[0])), torch.cat((last, wide[1])), [5, 3], 0.2)
    assert torch.equal(both[:5], select(first, last, [5], 0.2))
    assert torch.equal(both[5:], select(*wide, [3], 0.2))


def rows_by_eager_attention(name: str, inputs: Any) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Attention CLS -> patch of layer 0 and of the layer used, of all partitions stacked, as the authors read it."""
    model = models.ALL[name].model()
    model.model.vision_tower.set_attn_implementation("eager")
    pixels, partitions = inputs["pixel_values"], [1] * inputs["pixel_values"].shape[0]
    if pixels.dim() == 5:
        partitions = [1 + r * c for r, c in (entry.grid for entry in hired.reduce(model, inputs, 1.0).selection)]
        pixels = torch.cat([image[:count] for image, count in zip(pixels, partitions, strict=True)])
    with torch.no_grad():
        attentions = model.model.vision_tower(pixels, output_attentions=True).attentions
    used = model.config.vision_feature_layer  # -2: the output of the last layer but one
    return attentions[0][:, :, 0, 1:], attentions[used][:, :, 0, 1:], partitions


@pytest.mark.parametrize("name", models.CASES)
@pytest.mark.parametrize("budget", [0.75, 0.5, 0.25])
@pytest.mark.parametrize("alpha", [0.5, 0.25])
def test_reduce_chooses_what_the_reference_chooses(name: str, budget: float, alpha: float) -> None:
    inputs = pictures.inputs(name, [[(64, 64), (96, 20)], None, [(20, 70)]])
    first, last, partitions = rows_by_eager_attention(name, inputs)
    masks = torch.split(select(first, last, partitions, budget, alpha), partitions)
    reduced = hired.reduce(models.shared(name), inputs, budget, alpha=alpha, variant="published")
    assert len(reduced.selection) == len(masks)
    for entry, mask in zip(reduced.selection, masks, strict=True):
        if int(budget * mask.numel()) >= entry.tokens_full:  # it covers the image, which stays as it is
            assert entry.tokens_kept == entry.tokens_full
            continue
        side = models.SIDE // models.PATCH
        chosen = {(p, divmod(cell, side)) for p, cell in mask.nonzero().tolist()}
        there = {(token.partition, token.cell) for token in entry.real_tokens}
        # Choices that fall on padding are absent; no newline is kept.
        assert {(token.partition, token.cell) for token in entry.tokens} == chosen & there


def test_padding_takes_part_of_the_published_budget() -> None:
    inputs = pictures.inputs("llava_next", [[(96, 10)]])
    entry = hired.reduce(models.shared("llava_next"), inputs, 0.25, variant="published").selection[0]
    exact = hired.reduce(models.shared("llava_next"), inputs, 0.25).selection[0]
    assert exact.tokens_kept == 16
    assert entry.tokens_kept < exact.tokens_kept
