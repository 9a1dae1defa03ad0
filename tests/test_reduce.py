"""`hired.reduce`, from the processor's output to `generate` and `forward`."""

import math
from typing import Any

import pytest
import torch

import hired
from hired.methods.baselines import Random
from tests.support import byhand, models, pictures
from tests.support.reducing import (
    MIXED,
    N,
    alone,
    budgeted,
    every_family,
    generate,
    image_tokens,
    kept_rows,
)

# --- Budgets -----------------------------------------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("budget", [0.9, 0.5, 0.29, 0.2, 0.1, 0.07, 2, 7, 16, 17, 60, 84, 88, 1000])
def test_exactly_the_budget_is_kept(name: str, budget: float) -> None:
    model = models.shared(name)
    inputs = pictures.inputs(name, [[size] for size in pictures.UNLIKE])
    reduced = hired.reduce(model, inputs, budget)
    before = image_tokens(model, inputs)
    for entry, full, left in zip(reduced.selection, before, image_tokens(model, reduced), strict=True):
        allowed = math.floor(round(budget * 100) * budgeted(name, entry) / 100) if budget <= 1 else budget
        untouched = allowed >= full
        assert entry.tokens_full == full
        assert left == entry.tokens_kept == (full if untouched else min(allowed, entry.tokens_real))
        if not untouched:
            assert sum(entry.per_partition) == entry.tokens_kept, "newlines are dropped"
        assert entry.share_kept == pytest.approx(sum(entry.per_partition) / entry.tokens_real)


@every_family
@pytest.mark.parametrize("budget", [0.5, 0.2, 7, 40])
def test_newlines_kept_count_within_the_budget(name: str, budget: float) -> None:
    model = models.shared(name)
    reduced = hired.reduce(model, pictures.inputs(name, [[size] for size in pictures.UNLIKE]), budget, newlines="keep")
    for entry, left in zip(reduced.selection, image_tokens(model, reduced), strict=True):
        allowed = int(budget * budgeted(name, entry)) if budget <= 1 else int(budget)
        assert left == entry.tokens_kept == min(allowed, entry.tokens_full)
        newlines = [token for token in entry.tokens if token.partition is None]
        assert len(newlines) == entry.tokens_kept - sum(entry.per_partition)


def test_newlines_end_the_rows_that_keep_a_token() -> None:
    model = models.shared("llava_next")
    entry = hired.reduce(model, pictures.inputs("llava_next", [[(64, 64)]]), 0.3, newlines="keep").selection[0]
    row = 0
    lines = {}
    for place in range(entry.tokens_full):
        lines[place] = None if place < N else row
        row += place >= N and (place - N) % 9 == 8
    tiles = {lines[token.row] for token in entry.tokens if token.partition}
    ends = {lines[token.row] for token in entry.tokens if token.partition is None}
    assert tiles
    assert tiles == ends


@every_family
def test_budget_one_is_the_untouched_model(name: str) -> None:
    model = models.shared(name)
    for side in ("left", "right"):
        inputs = pictures.inputs(name, MIXED, side=side)
        reduced = hired.reduce(model, inputs, 1.0)
        assert reduced["pixel_values"] is inputs["pixel_values"]
        assert torch.equal(reduced["input_ids"], inputs["input_ids"])
        with torch.no_grad():
            assert torch.equal(model(**reduced).logits, model(**inputs).logits)
    inputs = pictures.inputs(name, MIXED)
    for settings in ({}, {"num_beams": 2}):
        ours = generate(model, hired.reduce(model, inputs, 1), **settings)
        assert torch.equal(ours, generate(model, inputs, **settings))


def test_share_is_of_real_partitions_not_of_padded_ones() -> None:
    model = models.shared("llava_next")
    # In a batch, pixel_values are padded to the most partitions of any picture: 5 here, though (20, 20) has 2.
    inputs = pictures.inputs("llava_next", [[(64, 64)], [(20, 20)]])
    assert inputs["pixel_values"].shape[1] == 5
    kept = [entry.tokens_kept for entry in hired.reduce(model, inputs, 0.5).selection]
    assert kept == [5 * N // 2, 2 * N // 2]


def test_alpha_is_the_full_images_share() -> None:
    model, inputs = models.shared("llava_next"), pictures.inputs("llava_next", [[(64, 64)]])
    kept = {alpha: hired.reduce(model, inputs, 10, alpha=alpha).selection[0] for alpha in (0, 0.25, 0.5, 1)}
    shares = {alpha: entry.per_partition[0] for alpha, entry in kept.items()}
    assert shares == {0: 0, 0.25: 2, 0.5: 5, 1: 10}


@every_family
def test_methods_by_name_and_by_object(name: str) -> None:
    model, inputs = models.shared(name), pictures.inputs(name, [[(64, 64)]])
    seven = hired.reduce(model, inputs, 6, method=Random(seed=7)).selection[0].rows
    assert seven != hired.reduce(model, inputs, 6, method=Random(seed=8)).selection[0].rows
    assert hired.reduce(model, inputs, 6, method="uniform").selection[0].rows != seven


# --- Against a by-hand reference ---------------------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("newlines", ["drop", "keep"])
@pytest.mark.parametrize("positions", ["consecutive", "original"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_and_loss_equal_the_by_hand_ones(name: str, newlines: Any, positions: Any, side: str) -> None:
    model = models.shared(name)
    inputs = pictures.inputs(name, MIXED, side=side)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels = labels.masked_fill(labels == model.config.image_token_id, -100)
    labels[:, ::3] = -100
    # The first token of a row is predicted by nothing, or, under left padding, by padding.
    labels[torch.arange(3), inputs["attention_mask"].argmax(1)] = -100
    inputs["labels"] = labels
    reduced = hired.reduce(model, inputs, 0.3, newlines=newlines, positions=positions)
    rows = byhand.rows(model, inputs, kept_rows(reduced), positions)
    with torch.no_grad():
        output = model(**reduced)
    valid = reduced["attention_mask"].bool()
    assert valid.sum(1).tolist() == [len(row.ids) for row in rows]
    for index, row in enumerate(rows):
        assert torch.equal(reduced["input_ids"][index][valid[index]], row.ids)
        assert row.labels is not None
        assert torch.equal(reduced["labels"][index][valid[index]], row.labels)
        assert (reduced["labels"][index][~valid[index]] == -100).all()
        if positions == "original":
            assert torch.equal(reduced["position_ids"][index][valid[index]], row.positions)
        else:
            assert "position_ids" not in reduced
        # Rotary positions are relative: padding on the left shifts them all and changes nothing.
        torch.testing.assert_close(output.logits[index][valid[index]], byhand.logits(model, row), atol=2e-4, rtol=1e-4)
    assert float(output.loss) == pytest.approx(byhand.loss(model, rows), rel=1e-4)


@every_family
@pytest.mark.parametrize("newlines", ["drop", "keep"])
@pytest.mark.parametrize("positions", ["consecutive", "original"])
@pytest.mark.parametrize("budget", [0.3, 7])
def test_greedy_decoding_equals_a_by_hand_loop(name: str, newlines: Any, positions: Any, budget: float) -> None:
    model = models.shared(name)
    inputs = pictures.inputs(name, MIXED)
    reduced = hired.reduce(model, inputs, budget, newlines=newlines, positions=positions)
    new = generate(model, reduced, eos_token_id=None, pad_token_id=0)
    assert new.shape == (3, 8)
    for row, got in zip(byhand.rows(model, inputs, kept_rows(reduced), positions), new.tolist(), strict=True):
        assert got == byhand.decode(model, row, 8, stop=None)


@every_family
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_longest_row_may_become_the_shortest(name: str, side: str) -> None:
    model = models.shared(name)
    inputs = pictures.inputs(name, [[(64, 64)] * 4, None], side=side, texts=("a?", "b" * 50))
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[torch.arange(2), inputs["attention_mask"].argmax(1)] = -100
    inputs["labels"] = labels.masked_fill(labels == model.config.image_token_id, -100)
    reduced = hired.reduce(model, inputs, 2)
    lengths = [x["attention_mask"].sum(1).tolist() for x in (inputs, reduced)]
    assert lengths[0][0] > lengths[0][1]
    assert lengths[1][0] < lengths[1][1] == lengths[0][1] == reduced["input_ids"].shape[1]
    padding = reduced["attention_mask"][0] == 0
    assert (reduced["labels"][0][padding] == -100).all()
    assert (reduced["input_ids"][0][padding] == 0).all()
    assert padding[0 if side == "left" else -1]
    rows = byhand.rows(model, inputs, kept_rows(reduced), "consecutive")
    with torch.no_grad():
        assert float(model(**reduced).loss) == pytest.approx(byhand.loss(model, rows), rel=1e-4)


def test_original_positions_differ_from_consecutive_ones() -> None:
    model, inputs = models.shared("llava_next"), pictures.inputs("llava_next", [[(64, 64)]])
    with torch.no_grad():
        apart = [model(**hired.reduce(model, inputs, 0.3, positions=p)).logits for p in ("consecutive", "original")]
    assert not torch.allclose(*apart, atol=1e-2)


def test_the_callers_own_positions_are_cut_alike() -> None:
    model, inputs = models.shared("llava_next"), pictures.inputs("llava_next", [[(64, 64)]])
    inputs["position_ids"] = 3 * torch.arange(inputs["input_ids"].shape[1])[None]
    reduced = hired.reduce(model, inputs, 0.3, positions="original")
    kept = byhand.rows(model, inputs, kept_rows(reduced), "original")[0].positions
    assert torch.equal(reduced["position_ids"][0], 3 * kept)


# --- Batches -----------------------------------------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_are_padded_again_on_their_side(name: str, side: str) -> None:
    model = models.shared(name)
    inputs = pictures.inputs(name, [[(64, 64)], [(96, 20), (20, 70)], None], side=side)
    reduced = hired.reduce(model, inputs, 0.2)
    mask, ids = reduced["attention_mask"], reduced["input_ids"]
    assert mask.shape == ids.shape
    assert mask.sum(1).max() == mask.shape[1], "a column of padding only"
    assert mask.sum(1).min() < mask.shape[1]
    steps = mask.diff(dim=1)
    assert (steps >= 0).all() if side == "left" else (steps <= 0).all()
    assert (ids[mask == 0] == 0).all()
    # Text stays, in its order.
    for row in range(3):
        texts = [x["input_ids"][row][x["attention_mask"][row].bool()].tolist() for x in (inputs, reduced)]
        plain = [[token for token in text if token != model.config.image_token_id] for text in texts]
        assert plain[0] == plain[1]


@every_family
def test_an_images_selection_does_not_depend_on_the_batch(name: str) -> None:
    model = models.shared(name)
    together = hired.reduce(model, pictures.inputs(name, [[size] for size in pictures.UNLIKE]), 0.25)
    for index, size in enumerate(pictures.UNLIKE):
        picture = pictures.noise(size, 100 * index)
        inputs = models.processor(name)(text="<image>\nq", images=picture, return_tensors="pt")
        single = hired.reduce(model, inputs, 0.25)
        assert single.selection[0].rows == together.selection[index].rows
        for one, other in zip(
            single["mm_encoder_outputs"]["image"].pooler_output[0],
            together["mm_encoder_outputs"]["image"].pooler_output[index],
            strict=True,
        ):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@every_family
def test_rows_generate_alike_alone_and_in_a_batch(name: str) -> None:
    model = models.shared(name)
    rows = [[(64, 64), (96, 20)], [(20, 70)], None]
    inputs = pictures.inputs(name, rows)
    together = generate(model, hired.reduce(model, inputs, 0.25), eos_token_id=None, pad_token_id=0)
    for index in range(len(rows)):
        new = generate(model, hired.reduce(model, alone(inputs, rows, index), 0.25), eos_token_id=None, pad_token_id=0)
        assert new[0].tolist() == together[index].tolist()


@every_family
def test_text_only_batches_pass_through(name: str) -> None:
    model = models.shared(name)
    inputs = pictures.inputs(name, [None, None])
    reduced = hired.reduce(model, inputs, 0.2)
    assert reduced.keys() == inputs.keys()
    assert all(torch.equal(reduced[key], inputs[key]) for key in inputs)
    assert reduced.selection == []
    assert torch.equal(generate(model, reduced), generate(model, inputs))


@every_family
def test_inputs_without_an_attention_mask(name: str) -> None:
    model = models.shared(name)
    inputs = pictures.inputs(name, [[(64, 64)]])
    with_mask = hired.reduce(model, inputs, 0.2)
    ids = {key: value for key, value in inputs.items() if key != "attention_mask"}
    without = hired.reduce(model, ids, 0.2)
    assert "attention_mask" not in without
    assert torch.equal(without["input_ids"], with_mask["input_ids"])
    assert torch.equal(generate(model, without), generate(model, with_mask))


@every_family
def test_original_positions_without_a_mask_are_not_taken_for_packed_sequences(name: str) -> None:
    model = models.shared(name)
    inputs = pictures.inputs(name, [[(64, 64)]])
    del inputs["attention_mask"]
    reduced = hired.reduce(model, inputs, 0.2, positions="original")
    row = byhand.rows(model, inputs, kept_rows(reduced), "original")[0]
    with torch.no_grad():
        logits = model(**reduced, use_cache=False).logits[0]
    torch.testing.assert_close(logits, byhand.logits(model, row), atol=2e-4, rtol=1e-4)


def test_a_mask_is_added_where_rows_become_unequal() -> None:
    model = models.shared("llava_next")
    # Of one length before (the shorter picture has the longer text), of two lengths after.
    one, two = (pictures.inputs("llava_next", [[size]])["input_ids"] for size in ((64, 64), (20, 20)))
    two = torch.cat((two, two.new_full((1, one.shape[1] - two.shape[1]), 8)), 1)
    whole = pictures.inputs("llava_next", [[(64, 64)], [(20, 20)]])
    inputs = {"input_ids": torch.cat((one, two)), **{k: whole[k] for k in ("pixel_values", "image_sizes")}}
    reduced = hired.reduce(model, inputs, 0.2)
    assert reduced["attention_mask"].sum(1).tolist() == [
        one.shape[1] - 88 + 16,
        two.shape[1] - 36 + 6,
    ]
    first = hired.reduce(model, pictures.inputs("llava_next", [[(64, 64)]]), 0.2)
    got = reduced["input_ids"][0][reduced["attention_mask"][0].bool()]
    assert torch.equal(got, first["input_ids"][0])


@every_family
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    model = models.ALL[name].model().to(dtype)
    inputs = pictures.inputs(name, MIXED).to(dtype)
    reduced = hired.reduce(model, inputs, 0.25)
    features = reduced["mm_encoder_outputs"]["image"].pooler_output
    assert {feature.dtype for feature in features} == {dtype}
    exact = hired.reduce(models.shared(name), pictures.inputs(name, MIXED), 0.25)
    for entry, other in zip(reduced.selection, exact.selection, strict=True):
        assert entry.tokens_kept == other.tokens_kept
        # The encoder rounds, the selection does not: nearly the same tokens.
        assert len(set(entry.rows) & set(other.rows)) >= 0.6 * entry.tokens_kept
    assert generate(model, reduced).shape[0] == 3
