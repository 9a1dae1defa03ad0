"""LLaVA-OneVision: what resampled tokens are made of, against the model's own packer; pictures that share a prompt."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

import hired
from hired.core.allocate import content_scores, share_out
from hired.core.budget import Budget
from hired.core.layout import STRUCTURE, Layout
from hired.families.llava_onevision import LlavaOnevision
from hired.reduction import encode, plan
from tests.support import models, pictures
from tests.test_errors import Change, drop, expect, put

NAME = "llava_onevision"
SIZES = [(64, 64), (90, 31), (30, 80), (70, 50), (20, 20), (102, 34), (102, 24), (68, 68), (102, 68), (300, 7), (1, 1)]
REAL = [(384, 384), (1344, 1344), (640, 480), (2304, 2304), (4000, 3000), (3000, 500), (500, 3000), (1153, 769), (1, 9)]


def full_size() -> Any:
    """A model with the geometry of the released checkpoints, without weights."""
    with torch.device("meta"):
        return LlavaOnevisionForConditionalGeneration(LlavaOnevisionConfig(text_config=models.text()))


def layout(model: Any, size: tuple[int, int], **more: Any) -> Layout:
    family = LlavaOnevision()
    return family.layouts(model, family.blank_inputs(model, [size]) | more, None)[0]


def packed(model: Any, values: Tensor, size: tuple[int, int]) -> Tensor:
    """(T, channels) what the model makes of (partitions, N, channels) features; newlines 1000."""
    newline = torch.full((values.shape[-1],), 1000.0, dtype=values.dtype)
    sizes = torch.tensor([[size[1], size[0]]])
    return model.model.pack_image_features([values], sizes, newline, model.config.vision_aspect_ratio)[0][0]


def check_against_the_packer(model: Any, size: tuple[int, int]) -> Layout:
    found = layout(model, size)
    torch.manual_seed(0)
    values = torch.randn(found.partitions, found.cells_per_partition, dtype=torch.float64)
    expected = packed(model, values[..., None], size)[:, 0]
    real = found.partition != STRUCTURE
    assert torch.equal(real, expected != 1000)
    torch.testing.assert_close(found.of_tokens(values)[real], expected[real], atol=1e-5, rtol=0)
    pairs = torch.stack((found.partition, found.cell), 1)[real]
    assert len(pairs.unique(dim=0)) == len(pairs), "two tokens of one name"
    return found


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tokens_are_made_of_the_cells_that_the_layout_says(size: tuple[int, int]) -> None:
    check_against_the_packer(models.shared(NAME), size)


@pytest.mark.parametrize("size", REAL, ids=str)
def test_the_geometry_of_the_released_checkpoints(size: tuple[int, int]) -> None:
    model = full_size()
    found = check_against_the_packer(model, size)
    counter = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)  # its constructor wants torchvision
    counter.image_processor = SimpleNamespace(image_grid_pinpoints=model.config.image_grid_pinpoints)
    counter.num_image_tokens, counter.vision_aspect_ratio = 729, model.config.vision_aspect_ratio
    assert found.tokens_full == counter._get_number_of_features(size[1], size[0], 384, 384)
    if found.mixing is not None:
        assert found.tokens_budgeted == found.tokens_real < 729 * 11
        # The boxes of the sub-images' tokens tile the picture, but for the strips between partitions no patch sees.
        boxes = [found.token_box(row) for row in range(729, found.tokens_full) if found.partition[row] != STRUCTURE]
        area = math.fsum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes)
        assert 0.95 * size[0] * size[1] < area <= size[0] * size[1] + 1e-6
        moved = found.to(torch.device("cpu"))
        assert torch.equal(moved.mixing.index, found.mixing.index)


def test_a_share_counts_what_the_llm_sees_where_tokens_are_resampled() -> None:
    model = full_size()
    small, large = layout(model, (384, 384)), layout(model, (2304, 2304))
    assert small.mixing is None
    assert Budget.parse(0.5).allowance(small) == 729
    assert large.partitions == 37
    assert Budget.parse(0.5).allowance(large) == (729 + 81 * 81) // 2


@pytest.mark.parametrize("size", [(64, 64), (102, 34), (30, 80)], ids=str)
def test_the_choice_is_that_of_scores_packed_by_the_model(size: tuple[int, int]) -> None:
    """HiRED by hand: importance goes through the model's own packer, then each partition keeps its best tokens."""
    model, inputs = models.shared(NAME), pictures.inputs(NAME, [[size]])
    entry = hired.reduce(model, inputs, 0.4).selection[0]
    planned = plan(model, inputs, 0.4)
    (attention,), (place,) = encode(planned).attention, planned.layouts
    assert place.mixing is not None
    assert attention.first is not None
    assert attention.last is not None
    scores = packed(model, attention.last.sum(1).double()[..., None], size)[:, 0]
    content = content_scores(attention.first.view(2, 4, 4), place.rows, place.columns)
    shares = share_out(int(0.4 * entry.tokens_real), 0.5, place.capacity, content).tolist()
    assert entry.per_partition == shares
    for partition, share in enumerate(shares):
        mine = [row for row in range(entry.tokens_full) if int(place.partition[row]) == partition]
        best = sorted(mine, key=lambda row: -float(scores[row]))[:share]
        assert sorted(best) == [row for row in entry.rows if row in mine]


def test_pictures_that_share_a_prompt_are_not_cut_unless_the_processor_was_not_told() -> None:
    model, processor = models.shared(NAME), models.processor(NAME)
    images = [pictures.noise((64, 64)), pictures.noise((90, 31))]
    told = processor(text="<image><image>q", images=[images], return_tensors="pt")
    untold = processor(text="<image><image>q", images=images, return_tensors="pt")
    for inputs, grids in ((told, [(0, 0), (0, 0)]), (untold, [(2, 2), (1, 3)])):
        reduced = hired.reduce(model, inputs, 0.3)
        assert [entry.grid for entry in reduced.selection] == grids
        same = hired.reduce(model, inputs, 1.0)
        with torch.no_grad():
            assert torch.equal(model(**same).logits, model(**inputs).logits)
    # Each uncut picture ends in a newline, which goes with the budget or stays within it.
    kept = hired.reduce(model, told, 0.3, newlines="keep").selection
    assert [[token.partition for token in entry.tokens] for entry in kept] == [[0, 0, 0, None]] * 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (drop("image_sizes"), "image_sizes is missing"),
        (put(image_sizes=torch.tensor([[64, 64]])), "2 images in pixel_values but 1 in image_sizes"),
        (put(batch_num_images=torch.tensor([1])), "2 images in pixel_values but 1 in batch_num_images"),
        (put(batch_num_images=torch.tensor([3, -1])), "batch_num_images"),
        (put(batch_num_images="two"), "batch_num_images must hold numbers"),
        (drop("batch_num_images"), "hold 1 partitions.*cuts into 5.*pass on batch_num_images"),
        (put(batch_num_images=torch.tensor([1, 1])), "hold 1 partitions.*cuts into 5"),
        (put(pixel_values=torch.zeros(3, 3, 34, 34)), "hold too many partitions"),
        (put(pixel_values=torch.zeros(3, 34, 34)), "3 images in pixel_values but 2"),
        (put(pixel_values_videos=torch.zeros(1, 2, 3, 34, 34)), "videos are not supported yet"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_inputs_that_do_not_fit(change: Change, match: str) -> None:
    inputs = dict(pictures.inputs(NAME, [[(64, 64), (90, 31)]]))
    change(inputs)
    expect(models.shared(NAME), inputs, hired.InputsError, match)


@pytest.mark.parametrize("ratio", ["anyres", "pad", ""])
def test_other_ratios_are_refused(ratio: str) -> None:
    model = models.ALL["llava_onevision"].model()
    model.config.vision_aspect_ratio = ratio
    with pytest.raises(hired.UnsupportedModelError, match="anyres_max_N"):
        layout(model, (64, 64))
