"""The stand-in for a CLS token, pooled over merged patches, on a trained encoder: random weights cannot tell."""

from functools import cache
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from benchmarks.stand_in import MODEL, above

from hired import loading, prompts
from hired.evaluation import Settings
from hired.evaluation.run import evaluate
from hired.evaluation.samples import samples
from hired.families import family_of


@cache
def second() -> tuple[Any, Any]:
    loaded = loading.load(str(MODEL), "cpu", "float32")
    return loaded.model, loaded.processor


def test_it_keeps_what_was_asked_for_where_random_tokens_do_not() -> None:
    settings = Settings(limit=48, budgets=(1, 0.2), methods=("hired", "random"))
    rows = evaluate(*second(), settings, prompts.prompt)
    correct = {(row["method"], row["budget"]): row["correct"] for row in rows}
    assert correct["hired", 1] >= 36
    assert correct["hired", 0.2] >= 0.85 * correct["hired", 1]
    assert correct["random", 0.2] <= 0.3 * correct["hired", 1]


def test_writing_receives_more_than_blank_paper_but_for_layer_0() -> None:
    """Which is why layer 1 divides the budget and the last one picks the tokens."""
    pages = samples(Settings(limit=16))
    told = [above(*second(), pages, layer) for layer in range(6)]
    assert told[0] < 0.5 < 0.9 < min(told[1], told[5])
    encoder = family_of(second()[0]).parts(second()[0])
    assert (encoder.first, encoder.last) == (1, 5)
