"""The stand-in for a CLS token, pooled over merged patches, on a trained encoder: random weights cannot tell."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("matplotlib")

from hired.cli import loading
from hired.evaluation import Settings
from hired.evaluation.checks import blank
from hired.evaluation.run import evaluate
from hired.evaluation.samples import samples
from hired.methods.base import token_scores
from hired.reduction import encode, plan

FOLDER = Path(__file__).parent / "data" / "tiny_aya"


@cache
def second() -> tuple[Any, Any]:
    loaded = loading.load(str(FOLDER), "cpu", "float32")
    return loaded.model, loaded.processor


def test_it_keeps_what_was_asked_for_where_random_tokens_do_not() -> None:
    settings = Settings(limit=48, budgets=(1, 0.2), methods=("hired", "random"))
    rows = evaluate(*second(), settings, loading.prompt)
    correct = {(row["method"], row["budget"]): row["correct"] for row in rows}
    assert correct["hired", 1] >= 36
    assert correct["hired", 0.2] >= 0.85 * correct["hired", 1]
    assert correct["random", 0.2] <= 0.3 * correct["hired", 1]


def test_writing_scores_above_blank_paper_in_every_tile() -> None:
    model, processor = second()
    above = []
    for sample in samples(Settings(limit=16)):
        text = loading.prompt(processor, sample.question)
        inputs = processor(text=text, images=[sample.image], return_tensors="pt")
        made = plan(model, inputs, 2, images=[sample.image])
        layout, attention = made.layouts[0], encode(made, everything=True).attention[0]
        assert attention.last is not None
        scores = token_scores(attention.last, layout)
        written = torch.ones(layout.tokens_full, dtype=torch.bool)
        written[blank(layout, sample)] = False
        for partition in range(1, layout.partitions):
            here = layout.partition == partition
            one, other = scores[here & written], scores[here & ~written]
            if len(one) and len(other):
                above.append((one[:, None] > other).float().mean())
    assert len(above) > 20
    assert torch.stack(above).mean() > 0.9  # 0.5 would be chance
