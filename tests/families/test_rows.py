"""Rows with holes in their masks, with padding on both sides, and of several sequences: every row is cut by its own."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hired
from hired.families import family_of
from tests.families.test_contract import rows_of
from tests.support import models, pictures
from tests.support.models import ALL
from tests.support.ragged import Shape, cut_by_hand, ragged, texts_of

each_family = pytest.mark.parametrize("name", ALL)
COLUMNS = ("gemma3", "lfm2_vl")
"""Language models in which masked columns count as distance: a sliding window, convolutions."""
CANNOT = ("gemma3", "cohere2_vision", "aya_vision")
"""Those whose layers do not all take one mask."""
BUDGETS = st.sampled_from([0.6, 0.3, 0.1, 7])


@cache
def inputs_of(name: str) -> Any:
    return pictures.inputs(name, rows_of(name))


@st.composite
def shapes(draw: st.DrawFn, name: str) -> list[Shape]:
    """Of every row; with padding in front of all or of none, as batches are, and holes anywhere but at its ends."""
    found = []
    front = draw(st.booleans())
    for places in texts_of(name, inputs_of(name)):
        holes = draw(st.sets(st.integers(1, len(places) - 2), max_size=3))
        lead = draw(st.integers(1, 5)) if front else 0
        found.append(Shape(lead, draw(st.integers(0, 5)), tuple(sorted(holes))))
    return found


def inner(reduced: Any, index: int) -> list[tuple[int, ...]]:
    """(id, mask, number) of a row of the result, without its padding."""
    ids, mask, numbers = (reduced[key][index].tolist() for key in ("input_ids", "attention_mask", "numbers"))
    real = [place for place, valid in enumerate(mask) if valid]
    return list(zip(ids, mask, numbers, strict=True))[real[0] : real[-1] + 1]


@each_family
@settings(max_examples=12)
@given(data=st.data())
def test_every_row_is_cut_by_its_own_places(name: str, data: st.DataObject) -> None:
    """Holes stay where they are, no text is lost, and the model sees what it sees of a row worked out by hand."""
    asked = data.draw(shapes(name))
    batch = ragged(name, inputs_of(name), asked)
    model, by_hand = models.shared(name), ALL[name].by_hand
    budget, positions = data.draw(BUDGETS), data.draw(st.sampled_from([None, "original"]))
    if not family_of(model).grid_positions and data.draw(st.booleans()):
        batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    reduced = hired.reduce(model, batch, budget, positions=positions)
    kept = [entry.rows for entry in reduced.selection]
    lengths = [entry.tokens_full for entry in reduced.selection]
    expected = cut_by_hand(name, batch, kept, lengths)
    assert [inner(reduced, index) for index in range(len(expected))] == expected
    if any(each.lead for each in asked):  # completions behind padded prompts stay aligned at the right
        ends = [int(mask.flip(0).argmax()) for mask in batch["attention_mask"]]
        assert [int(mask.flip(0).argmax()) for mask in reduced["attention_mask"]] == ends
    given_positions = reduced.get("position_ids")
    if given_positions is None:  # as `generate` counts
        reduced["position_ids"] = (reduced["attention_mask"].cumsum(1) - 1).clamp(min=0)
    where = "original" if positions == "original" or family_of(model).grid_positions else "consecutive"
    rows = by_hand.rows(model, batch, kept, where, lengths)
    extra = {"numbers": None}
    with torch.no_grad():
        logits = model(**{key: value for key, value in reduced.items() if key not in extra}).logits
    for index, row in enumerate(rows):
        if asked[index].holes and name in COLUMNS:
            continue
        real = reduced["attention_mask"][index].bool()
        torch.testing.assert_close(logits[index][real], by_hand.logits(model, row), atol=3e-4, rtol=2e-3)


@each_family
@settings(max_examples=8)
@given(data=st.data())
def test_labels_and_shifted_labels_go_with_their_tokens(name: str, data: st.DataObject) -> None:
    batch = ragged(name, inputs_of(name), data.draw(shapes(name)))
    token = ALL[name].by_hand.token(models.shared(name))
    unlabelled = (batch["attention_mask"] == 0) | (batch["input_ids"] == token)
    labels = batch["input_ids"].masked_fill(unlabelled, -100)
    ignored = torch.full_like(labels[:, :1], -100)
    shifted = torch.cat((labels[:, 1:], ignored), 1)
    budget = data.draw(BUDGETS)
    reduced = hired.reduce(models.shared(name), {**batch, "labels": labels, "shift_labels": shifted}, budget)
    assert torch.equal(reduced["shift_labels"], torch.cat((reduced["labels"][:, 1:], ignored), 1))
    for index in range(len(labels)):
        told, left = labels[index], reduced["labels"][index]
        assert left[left != -100].tolist() == told[told != -100].tolist()
        real = reduced["attention_mask"][index].bool()
        assert (left[~real] == -100).all()
        at = left != -100
        assert left[at].tolist() == reduced["input_ids"][index][at].tolist()


@each_family
def test_a_mask_that_generate_infers(name: str) -> None:
    """Padding has an id of its own: without a mask the answers are those with one."""
    model, inputs = models.shared(name), inputs_of(name)
    bare = {key: value for key, value in inputs.items() if key != "attention_mask"}
    asked: dict[str, Any] = {"max_new_tokens": 1, "do_sample": False, "output_logits": True}
    asked["return_dict_in_generate"] = True

    def first(given: Any) -> torch.Tensor:
        return model.generate(**given, **asked).logits[0]

    expected = first(hired.reduce(model, inputs, 0.3))
    torch.testing.assert_close(first(hired.reduce(model, bare, 0.3)), expected)
    with hired.enable(other := ALL[name].model(), 0.3):
        torch.testing.assert_close(other.generate(**bare, **asked).logits[0], expected)
        # The call may name another padding id: then nothing is padded.
        other.generation_config.pad_token_id = 33
        torch.testing.assert_close(other.generate(**bare, **asked, pad_token_id=0).logits[0], expected)
        other.generation_config.pad_token_id = 0
        ones = {**bare, "attention_mask": torch.ones_like(bare["input_ids"])}
        nothing = first(hired.reduce(model, ones, 0.3))
        torch.testing.assert_close(other.generate(**bare, **asked, pad_token_id=33).logits[0], nothing)
        # forward infers nothing.
        with torch.no_grad():
            torch.testing.assert_close(other(**bare).logits, other(**ones).logits)


def packed_of(name: str, order: tuple[int | None, ...] = (0, 1)) -> tuple[list[Any], dict[str, Any]]:
    """Prompts of one picture each, or of none, apart and packed into one row."""
    sizes = ALL[name].sizes
    rows_of_pictures = [None if index is None else [sizes[index]] for index in order]
    together = pictures.inputs(name, rows_of_pictures)
    shape = together["input_ids"].shape
    rows = [mask.bool() for mask in together["attention_mask"]]
    packed = dict(together)
    for key, value in together.items():
        if isinstance(value, torch.Tensor) and value.shape == shape:
            packed[key] = torch.cat([each[real] for each, real in zip(value, rows, strict=True)])[None]
    packed["position_ids"] = torch.cat([torch.arange(int(real.sum())) for real in rows])[None]
    del packed["attention_mask"]
    apart = [
        pictures.inputs(name, [row], first=place, texts=[pictures.TEXTS[place]])
        for place, row in enumerate(rows_of_pictures)
    ]
    assert [int(real.sum()) for real in rows] == [each["input_ids"].shape[1] for each in apart]
    return apart, packed


@each_family
@settings(max_examples=6)
@given(
    order=st.lists(st.sampled_from([0, 1, 2, None]), min_size=2, max_size=3).filter(
        lambda order: any(index is not None for index in order)
    ),
    budget=BUDGETS,
    positions=st.sampled_from([None, "original"]),
)
def test_packed_sequences_stay_apart(name: str, order: list[int | None], budget: float, positions: Any) -> None:
    """Positions that restart tell where one prompt ends: each is numbered on its own, and sees nothing of the other."""
    model = models.shared(name)
    if family_of(model).grid_positions:
        pytest.skip("its positions are three, and tell of no packing")
    apart, packed = packed_of(name, tuple(order))
    with torch.no_grad():
        stock = model(**packed, use_cache=False).logits[0, -1]
        if not torch.allclose(stock, model(**apart[-1]).logits[0, -1], atol=1e-3):
            pytest.skip("the untouched model does not keep packed sequences apart")
        if positions == "original" and name in CANNOT:
            with pytest.raises(hired.InputsError, match="tells packed sequences apart"):
                hired.reduce(model, packed, budget, positions=positions)
            return
        reduced = hired.reduce(model, packed, budget, positions=positions)
        logits = model(**reduced, use_cache=False).logits[0]
        length = 0
        for one in [hired.reduce(model, each, budget, positions=positions) for each in apart]:
            part = slice(length, length := length + one["input_ids"].shape[1])
            assert reduced["input_ids"][0, part].tolist() == one["input_ids"][0].tolist()
            torch.testing.assert_close(logits[part], model(**one).logits[0], atol=3e-4, rtol=2e-3)
        assert length == reduced["input_ids"].shape[1]
        assert reduced["position_ids"][0].tolist().count(0) == len(order)
        with hired.enable(other := ALL[name].model(), budget, positions=positions):
            torch.testing.assert_close(other(**packed, use_cache=False).logits[0], logits, atol=3e-4, rtol=2e-3)


def test_packed_rows_of_unlike_length() -> None:
    """What fills the shorter row up is seen by none of it."""
    name = "llava_next"
    model = models.shared(name)
    apart, packed = packed_of(name)
    first = {key: value for key, value in apart[0].items() if key != "attention_mask"}
    length = packed["input_ids"].shape[1]
    ids = torch.full((1, length), 7)
    places = torch.zeros(1, length, dtype=torch.int64)
    ids[:, : first["input_ids"].shape[1]] = first["input_ids"]
    places[:, : first["input_ids"].shape[1]] = torch.arange(first["input_ids"].shape[1])
    most = max(each["pixel_values"].shape[1] for each in (packed, first))

    def padded(pixels: torch.Tensor) -> torch.Tensor:
        return torch.cat((pixels, pixels.new_zeros(len(pixels), most - pixels.shape[1], *pixels.shape[2:])), 1)

    both = {
        "input_ids": torch.cat((packed["input_ids"], ids)),
        "position_ids": torch.cat((packed["position_ids"], places)),
        "pixel_values": torch.cat((padded(packed["pixel_values"]), padded(first["pixel_values"]))),
        "image_sizes": torch.cat((packed["image_sizes"], first["image_sizes"])),
    }
    with torch.no_grad():
        logits = model(**hired.reduce(model, both, 0.2), use_cache=False).logits
        one = hired.reduce(model, packed, 0.2)
        width = one["input_ids"].shape[1]
        torch.testing.assert_close(logits[0, :width], model(**one, use_cache=False).logits[0], atol=3e-4, rtol=2e-3)
        alone = hired.reduce(model, apart[0], 0.2)
        width = alone["input_ids"].shape[1]
        torch.testing.assert_close(logits[1, :width], model(**alone).logits[0], atol=3e-4, rtol=2e-3)
