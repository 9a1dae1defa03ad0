"""`.selection`: reports of what was kept."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hired
from hired.core.layout import STRUCTURE
from hired.reduction import encode, plan
from tests.support import models, pictures
from tests.support.reducing import MIXED, N, each_family, generate, kept_rows

# --- Reports -----------------------------------------------------------------------------------------------------


@each_family
def test_selection_is_worked_out_on_request(name: str) -> None:
    reduced = hired.reduce(models.shared(name), pictures.inputs(name, [[(64, 64)]]), 0.25)
    assert "selection" not in vars(reduced)
    first = reduced.selection
    assert reduced.selection is first


def test_selection_of_a_known_picture() -> None:
    reduced = hired.reduce(models.shared("llava_next"), pictures.inputs("llava_next", [[(64, 32)], [(30, 90)]]), 0.25)
    wide, tall = reduced.selection
    assert (wide.size, wide.grid, wide.partitions) == ((64, 32), (1, 2), 3)
    assert (wide.tokens_full, wide.tokens_real, wide.tokens_kept) == (3 * N + 4, 3 * N, 12)
    assert wide.share_kept == 0.25
    assert sum(wide.per_partition) == 12
    assert wide.per_partition[0] == 6
    assert wide.boxes == [(0, 0, 64, 32), (0, 0, 32, 32), (32, 0, 64, 32)]
    assert (tall.size, tall.grid) == ((30, 90), (3, 1))
    assert tall.content is not None
    assert tall.content.shape == (4, 4)
    for token in wide.tokens:
        assert token.partition is not None
        assert token.cell is not None
        x0, y0, _, _ = wide.boxes[token.partition]
        side = (16 if token.partition == 0 else 8, 8)
        row, column = token.cell
        left, top = x0 + column * side[0], y0 + row * side[1]
        assert token.box == (left, top, left + side[0], top + side[1])


@each_family
def test_kept_tokens_stand_in_their_order(name: str) -> None:
    reduced = hired.reduce(models.shared(name), pictures.inputs(name, MIXED), 0.25, newlines="keep")
    for entry, features in zip(reduced.selection, reduced["mm_encoder_outputs"]["image"].pooler_output, strict=True):
        assert entry.rows == sorted(set(entry.rows)) == [token.row for token in entry.tokens]
        assert len(entry.tokens) == entry.tokens_kept == len(features)
        assert len(entry.real_tokens) == entry.tokens_real
        real = {token.row: token for token in entry.real_tokens}
        assert all(real[token.row] == token for token in entry.tokens if token.partition is not None)
        counts = [sum(token.partition == p for token in entry.tokens) for p in range(entry.partitions)]
        assert counts == entry.per_partition


@each_family
def test_kept_features_are_the_untouched_ones(name: str) -> None:
    model, inputs = models.shared(name), pictures.inputs(name, MIXED)
    planned = plan(model, inputs, 2)
    whole = encode(planned, everything=True).features or []
    reduced = hired.reduce(model, inputs, 0.25)
    for entry, full, kept in zip(
        reduced.selection, whole, reduced["mm_encoder_outputs"]["image"].pooler_output, strict=True
    ):
        assert torch.equal(kept, full[entry.rows])


def test_llava_without_the_pictures_reports_encoder_pixels() -> None:
    inputs = pictures.inputs("llava", [[(64, 32)]])
    entry = hired.reduce(models.shared("llava"), inputs, 0.5).selection[0]
    assert (entry.size, entry.grid, entry.partitions) == (None, (0, 0), 1)
    assert entry.boxes == [(0, 0, 32, 32)]
    token = entry.tokens[0]
    assert token.cell is not None
    row, column = token.cell
    assert token.box == (column * 8, row * 8, column * 8 + 8, row * 8 + 8)


@pytest.mark.parametrize(
    "images",
    [
        Image.new("RGB", (64, 32)),
        [Image.new("RGB", (64, 32))],
        [[Image.new("RGB", (64, 32))]],
        (64, 32),
        [(64, 32)],
        [(np.int64(64), np.int64(32))],
        torch.zeros(3, 32, 64),
        torch.zeros(32, 64, 3).numpy(),
        [torch.zeros(32, 64).numpy()],
    ],
    ids=["picture", "list", "nested", "pair", "pairs", "numpy", "channels first", "channels last", "grey"],
)
def test_images_tell_the_size(images: Any) -> None:
    inputs = pictures.inputs("llava", [[(64, 32)]])
    entry = hired.reduce(models.shared("llava"), inputs, 0.5, images=images).selection[0]
    assert entry.size == (64, 32)
    assert entry.boxes == [(16, 0, 48, 32)]


def test_images_may_be_given_where_the_inputs_tell_the_size() -> None:
    inputs = pictures.inputs("llava_next", [[(64, 32)]])
    entry = hired.reduce(models.shared("llava_next"), inputs, 0.5, images=[(64, 32)]).selection[0]
    assert entry.size == (64, 32)


def test_an_untouched_image_reports_all_its_tokens() -> None:
    entry = hired.reduce(models.shared("llava_next"), pictures.inputs("llava_next", [[(64, 64)]]), 1.0).selection[0]
    assert entry.tokens_kept == entry.tokens_full == len(entry.tokens)
    assert sum(token.partition is None for token in entry.tokens) == 8
    assert STRUCTURE not in entry.per_partition
    assert entry.share_kept == 1.0
    assert entry.content is None


def test_content_is_there_where_it_was_read() -> None:
    model, inputs = models.shared("llava_next"), pictures.inputs("llava_next", [[(64, 64)], [(20, 20)]])
    cut, whole = hired.reduce(model, inputs, 40).selection
    assert (cut.tokens_kept, whole.tokens_kept) == (40, whole.tokens_full)
    for entry in (cut, whole):
        assert entry.content is not None
        # Two heads, each a softmax over the CLS and the patches.
        assert 0.5 < float(entry.content.sum()) <= 2.0 + 1e-6
    assert hired.reduce(model, inputs, 40, method="uniform").selection[0].content is None


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda x: x.copy(), lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_carry_the_selection(duplicate: Any) -> None:
    model = models.shared("llava_next")
    reduced = hired.reduce(model, pictures.inputs("llava_next", [[(64, 64)], [(20, 20)]]), 0.25)
    other = duplicate(reduced)
    assert isinstance(other, hired.ReducedInputs)
    assert kept_rows(other) == kept_rows(reduced)
    assert torch.equal(generate(model, other), generate(model, reduced))


def test_reports_can_be_compared() -> None:
    inputs = pictures.inputs("llava_next", [[(64, 64)]])
    one, other = (hired.reduce(models.shared("llava_next"), inputs, 0.25).selection[0] for _ in range(2))
    assert one == one
    assert one != other
    assert one.tokens == other.tokens
