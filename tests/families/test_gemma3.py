"""Gemma 3: what each token averages, pan-and-scan with and without the pictures, bad inputs."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessorPil, Gemma3TextConfig

import hired
from hired.core.layout import Layout
from hired.costs.tokens import image_layouts
from hired.errors import InputsError, UnsupportedModelError
from hired.families.gemma3 import Gemma3
from hired.reduction import encode, plan
from tests import test_paint
from tests.families.test_contract import kept, lengths, refused
from tests.families.test_tiles import photograph
from tests.support import models, pictures
from tests.support.cases.gemma3 import ALONG, PATCH, SIDE, gemma3_processor

NAME = "gemma3"
N = ALONG**2
FAMILY = Gemma3()
PAN_AND_SCAN = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 12,
    "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}
CUT = {(90, 30): (1, 3), (30, 80): (3, 1), (70, 50): (1, 2), (50, 70): (2, 1), (96, 24): (1, 4), (40, 40): (0, 0)}


@pytest.fixture
def cutting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor with pan-and-scan."""
    monkeypatch.setattr(models, "processor", lambda name, side="left": gemma3_processor(side, **PAN_AND_SCAN))


def full_size() -> Any:
    """A model with the geometry of the released checkpoints, without weights."""
    vision = models.siglip(image_size=896, patch_size=14, num_hidden_layers=27)
    text = Gemma3TextConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=2, vocab_size=64)
    with torch.device("meta"):
        return Gemma3ForConditionalGeneration(Gemma3Config(vision_config=vision.to_dict(), text_config=text.to_dict()))


@pytest.mark.parametrize("released", [False, True])
def test_tokens_are_pooled_as_the_model_pools(released: bool) -> None:
    model = full_size() if released else models.shared(NAME)
    encoder, along = FAMILY.parts(model), 64 if released else SIDE // PATCH
    torch.manual_seed(0)
    patches = torch.rand(2, along, along)
    expected = avg_pool2d(patches, 4 if released else 2).flatten(1)
    torch.testing.assert_close(encoder.scores(patches.flatten(1)), expected)
    assert expected.shape[1] == (256 if released else N)
    assert encoder.cls is None
    assert encoder.last == (26 if released else 2)


def test_scores_are_those_of_eager_attention() -> None:
    model, inputs = models.ALL[NAME].model(), pictures.inputs(NAME, [[(64, 64)]])
    found = encode(plan(model, inputs, 0.3)).attention[0]
    model.set_attn_implementation("eager")
    seen = model.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions
    for layer, rows in ((1, found.first), (2, found.last[0])):
        patches = seen[layer][0].mean(1).unflatten(-1, (SIDE // PATCH, SIDE // PATCH))
        torch.testing.assert_close(rows, avg_pool2d(patches, 2).flatten(1), atol=1e-6, rtol=1e-4)


def test_tokens_are_counted_without_a_processor() -> None:
    found = image_layouts(full_size(), [(4000, 3000), (100, 900)])
    assert [layout.tokens_full for layout in found] == [256, 256]
    assert found[0].boxes == ((0.0, 0.0, 4000.0, 3000.0),)


def test_boxes_end_where_the_last_pooled_patch_ends() -> None:
    model = models.shared(NAME)
    edge = 2 * ALONG * PATCH
    for sizes, whole in ((None, (edge, edge)), ([(380, 190)], (10 * edge, 5 * edge))):
        layout = FAMILY.layouts(model, FAMILY.blank_inputs(model, [(1, 1)]), sizes)[0]
        assert layout.boxes == ((0.0, 0.0, *whole),)


@pytest.mark.usefixtures("cutting")
class TestPanAndScan:
    def test_without_the_pictures_every_entry_is_one(self) -> None:
        model, inputs = models.shared(NAME), pictures.inputs(NAME, [[(90, 30)], [(30, 80), (40, 40)]])
        assert len(inputs["pixel_values"]) == 4 + 4 + 1
        found = hired.reduce(model, inputs, 0.25).selection
        assert [(entry.grid, entry.tokens_kept, entry.size) for entry in found] == [((0, 0), 4, None)] * 9

    @pytest.mark.parametrize("size", CUT, ids=str)
    def test_with_the_pictures_crops_are_sub_images(self, size: tuple[int, int]) -> None:
        model, inputs = models.shared(NAME), pictures.inputs(NAME, [[size]])
        entry = hired.reduce(model, inputs, 0.25, images=[size]).selection[0]
        rows, columns = CUT[size]
        assert entry.grid == (rows, columns)
        assert entry.tokens_kept == (1 + rows * columns) * 4
        assert entry._layout.rows.sum() == pytest.approx(ALONG if rows else 0, abs=0.7)

    @pytest.mark.parametrize("budget", [0.3, 4])
    def test_logits_and_answers_equal_those_worked_out_by_hand(self, budget: float) -> None:
        rows = [[(90, 30), (40, 40)], None, [(30, 80)]]
        model, inputs, by_hand = models.shared(NAME), pictures.inputs(NAME, rows), models.ALL[NAME].by_hand
        reduced = hired.reduce(model, inputs, budget, images=[size for row in rows for size in row or ()])
        assert [entry.grid for entry in reduced.selection] == [(1, 3), (0, 0), (3, 1)]
        assert budget != 4 or any(0 in entry.per_partition for entry in reduced.selection)
        expected = by_hand.rows(model, inputs, kept(reduced), "consecutive", lengths(reduced))
        settings = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "max_new_tokens": 5}
        new = model.generate(**reduced, **settings)[:, reduced["input_ids"].shape[1] :]
        beams = model.generate(**reduced, **settings, num_beams=3)
        assert torch.equal(model.generate(**reduced, **settings, num_beams=3), beams)
        with torch.no_grad():
            logits = model(**reduced).logits
        for index, row in enumerate(expected):
            real = reduced["attention_mask"][index].bool()
            visual = row.ids == by_hand.token(model)
            assert reduced["token_type_ids"][index][real].tolist() == visual.tolist()
            torch.testing.assert_close(logits[index][real], by_hand.logits(model, row), atol=2e-4, rtol=1e-3)
            assert new[index].tolist() == by_hand.decode(model, row, 5, stop=None)

    def test_the_content_of_the_whole_divides_the_budget(self) -> None:
        """A crop gets what the tokens of the whole picture that it covers receive in the initial layer."""
        model, size = models.shared(NAME), (90, 30)
        planned = plan(model, pictures.inputs(NAME, [[size]]), 32, images=[size])
        first = encode(planned).attention[0].first.sum(0).view(ALONG, ALONG).double()
        width = 90 * 32 / SIDE / ALONG  # of a token of the whole picture
        covered = [
            [max(0.0, min(x1, (c + 1) * width) - max(x0, c * width)) / width for c in range(ALONG)]
            for x0, x1 in ((30 * crop, 30 * crop + 30 * 32 / SIDE) for crop in range(3))
        ]
        content = torch.tensor(covered).double() @ first.sum(0)
        entry = hired.reduce(model, planned.inputs, 32, images=[size]).selection[0]
        assert entry.per_partition[0] == 16
        order = content.argsort().tolist()
        shares = [entry.per_partition[1 + crop] for crop in order]
        assert shares == sorted(shares)
        assert sum(shares) == 16

    @pytest.mark.parametrize("size", CUT, ids=str)
    def test_paint(self, size: tuple[int, int]) -> None:
        assert test_paint.check(NAME, size, images=[size]).grid == CUT[size]

    def test_pictures_that_are_not_those_of_the_inputs_are_refused(self) -> None:
        inputs = pictures.inputs(NAME, [[(90, 30)], [(40, 40)]])
        for images in ([(90, 30)], [(40, 40), (90, 30)], [(40, 40)] * 2, [(90, 30)] * 6):
            assert "images= has" in refused(NAME, inputs, images=images)
        assert hired.reduce(models.shared(NAME), inputs, 9, images=[(90, 30), (50, 30)]).selection[0].grid == (1, 3)

    def test_blank_pictures_that_may_have_been_cut_in_several_ways_are_refused(self) -> None:
        """Of two long pictures in one prompt one was cut: the longer one, or the larger one."""
        inputs = pictures.inputs(NAME, [[(40, 40), (70, 50)]])  # one whole, one whole and two crops
        blank = torch.zeros_like(inputs["pixel_values"])
        words = refused(NAME, {**inputs, "pixel_values": blank}, images=[(200, 100), (60, 40)])
        assert "leave images= out" in words


def truth(sizes: list[tuple[int, int]], settings: tuple[int, int, float]) -> list[int]:
    blanks = [np.empty((0, height, width)) for width, height in sizes]
    return [len(Gemma3ImageProcessorPil.pan_and_scan(None, blank, *settings)) for blank in blanks]


def given(crops: list[int], rows: list[int], pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Inputs for pictures that were cut into so many crops, the first `rows[0]` of them in the first prompt..."""
    prompts, used = [], 0
    for count in rows:
        entries = sum(1 + crop for crop in crops[used : used + count])
        prompts.append(([models.shared(NAME).config.image_token_id] * N + [5]) * entries)
        used += count
    width = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([prompt + [0] * (width - len(prompt)) for prompt in prompts]),
        "pixel_values": pixels,
    }


def check_crops(layouts: list[Layout], sizes: list[tuple[int, int]], crops: list[int]) -> None:
    assert [layout.partitions - 1 for layout in layouts] == crops
    for layout, size, count in zip(layouts, sizes, crops, strict=True):
        wide = size[0] >= size[1]
        assert layout.grid == ((0, 0) if not count else (1, count) if wide else (count, 1))
        assert layout.tokens_full == (1 + count) * N
        step = -(-max(size) // max(count, 1))
        assert [box[0 if wide else 1] for box in layout.boxes[1:]] == [step * crop for crop in range(count)]


def test_crops_are_told_rightly_or_not_at_all_without_looking() -> None:
    """Over random settings of the processor, which nothing in the inputs tells; one picture a prompt always tells."""
    random, told = np.random.default_rng(0), []
    for _ in range(300):
        sizes = [tuple(map(int, random.integers(200, 1600, 2))) for _ in range(random.integers(1, 5))]
        limits = int(random.choice([64, 256, 256, 400])), int(random.choice([1, 2, 4, 4, 6]))
        crops = truth(sizes, (*limits, float(random.choice([1.0, 1.2, 1.2, 2.0]))))
        blank = torch.zeros(len(crops) + sum(crops), 3, SIDE, SIDE)
        check_crops(FAMILY.layouts(models.shared(NAME), given(crops, [1] * len(sizes), blank), sizes), sizes, crops)
        try:
            layouts = FAMILY.layouts(models.shared(NAME), given(crops, [len(sizes)], blank), sizes)
        except InputsError as error:
            told.append(str(error))
        else:
            told.append("")
            check_crops(layouts, sizes, crops)
    assert 100 < told.count("") < 200
    assert all("leave images= out" in words for words in told if words)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_looking_tells_the_rest(dtype: torch.dtype) -> None:
    random = np.random.default_rng(1)
    cutter = Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_pan_and_scan=True)
    for seed in range(60):
        sizes = [tuple(map(int, random.integers(80, 640, 2))) for _ in range(random.integers(2, 5))]
        images = [photograph(size, 10 * seed + place) for place, size in enumerate(sizes)]
        settings = {
            "pan_and_scan_min_crop_size": int(random.choice([16, 80])),
            "pan_and_scan_max_num_crops": int(random.choice([2, 4])),
            "pan_and_scan_min_ratio_to_activate": float(random.choice([1.2, 2.0])),
        }
        made = cutter(images, **settings, return_tensors="pt")
        crops = made["num_crops"].tolist()
        inputs = given(crops, [len(sizes)], made["pixel_values"].to(dtype))
        check_crops(FAMILY.layouts(models.shared(NAME), inputs, sizes), sizes, crops)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda inputs: {"pixel_values": inputs["pixel_values"][:1]}, "placeholders for 2 tiles"),
        (lambda inputs: {"pixel_values": inputs["pixel_values"][:, :1]}, "must be (images, 3, 38, 38)"),
        (lambda inputs: {"pixel_values": inputs["pixel_values"][0]}, "must be (images, 3, 38, 38)"),
        (lambda inputs: {"pixel_values": inputs["pixel_values"][..., :32, :32]}, "must be (images, 3, 38, 38)"),
        (lambda inputs: {key: inputs[key][:, :20] for key in ("input_ids", "attention_mask")}, "truncated"),
        (lambda inputs: {key: inputs[key][:, 20:] for key in ("input_ids", "attention_mask")}, "truncated"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change: Any, words: str) -> None:
    inputs = pictures.inputs(NAME, [[(64, 64), (90, 31)]])
    assert words in refused(NAME, {**inputs, **change(inputs)})


@pytest.mark.parametrize(("kind", "words"), [("clip_vision_model", "keeps the CLS token"), ("vit", "is not supported")])
def test_other_encoders_are_refused(kind: str, words: str) -> None:
    model, inputs = models.ALL[NAME].model(), pictures.inputs(NAME, [[(64, 64)]])
    model.config.vision_config.model_type = kind
    with pytest.raises(UnsupportedModelError, match=words):
        hired.reduce(model, inputs, 0.3)
