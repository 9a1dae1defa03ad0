"""The loss under `hired.enable` where the caller has counted the labels of the full prompt."""

from typing import Any

import pytest
import torch

import hired
from hired import InputsError
from tests.support import byhand, models, pictures
from tests.support.enabling import fresh
from tests.support.reducing import MIXED, every_family, kept_rows


def labelled(name: str, placeholders: bool) -> dict[str, Any]:
    """Inputs with labels of all tokens, or of text alone."""
    inputs = dict(pictures.inputs(name, MIXED, side="right"))
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    token = models.shared(name).config.image_token_id
    return {**inputs, "labels": labels if placeholders else labels.masked_fill(labels == token, -100)}


def mean_by_hand(name: str, inputs: Any) -> float:
    """The mean over the labels that are left and predicted."""
    model = models.shared(name)
    reduced = hired.reduce(model, inputs, 0.25)
    return byhand.loss(model, byhand.rows(model, inputs, kept_rows(reduced), "consecutive"))


@every_family
@pytest.mark.parametrize("form", [int, torch.tensor])
@pytest.mark.parametrize("counted", ["all", "predicted"])
@pytest.mark.parametrize("placeholders", [False, True])
def test_items_in_the_batch(name: str, placeholders: bool, counted: str, form: Any) -> None:
    """A trainer divides the sum of losses by the labels it has counted: those of dropped tokens do not count."""
    model, inputs = fresh(name), labelled(name, placeholders)
    labels = inputs["labels"] if counted == "all" else inputs["labels"][:, 1:]
    items = int((labels != -100).sum())
    with torch.no_grad(), hired.enable(model, 0.25):
        loss = float(model(**inputs, num_items_in_batch=form(items)).loss)
        mean = float(model(**inputs).loss)
    assert mean == pytest.approx(mean_by_hand(name, inputs), rel=1e-4)
    reduced = hired.reduce(models.shared(name), inputs, 0.25)["labels"]
    left, all_left = int((reduced[:, 1:] != -100).sum()), int((reduced != -100).sum())
    assert loss == pytest.approx(mean * left / (all_left if counted == "all" else left), rel=1e-4)
    if placeholders:
        assert left < items


@every_family
def test_labels_of_dropped_tokens_counted_with_other_batches_are_refused(name: str) -> None:
    model, inputs = fresh(name), labelled(name, placeholders=True)
    with hired.enable(model, 0.25), pytest.raises(InputsError, match=r"num_items_in_batch=12345 .*-100"):
        model(**inputs, num_items_in_batch=12345)
    inputs = labelled(name, placeholders=False)
    with torch.no_grad(), hired.enable(model, 0.25):  # gradient accumulation: other batches' labels count too
        one, other = (float(model(**inputs, num_items_in_batch=items).loss) for items in (100, 200))
    assert one == pytest.approx(2 * other)


@every_family
def test_shifted_labels(name: str) -> None:
    """Labels of the next token, which stand a place before it: those behind a dropped token are not lost."""
    model, inputs = fresh(name), labelled(name, placeholders=False)
    labels = inputs.pop("labels")
    shifted = torch.cat((labels[:, 1:], torch.full_like(labels[:, :1], -100)), 1)
    with torch.no_grad(), hired.enable(model, 0.25):
        found = model(**inputs, labels=labels).loss
        output = model(**inputs, labels=labels, shift_labels=shifted)
    torch.testing.assert_close(output.loss, found)
    reduced = hired.reduce(models.shared(name), {**inputs, "shift_labels": shifted}, 0.25)
    assert int((reduced["shift_labels"] != -100).sum()) == int((shifted != -100).sum())
