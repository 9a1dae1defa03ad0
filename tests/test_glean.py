"""Our own method: what is new, in one pass; robust where attention says nothing, or the wrong thing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hired.core import novelty as module
from hired.core.novelty import novelty


def slow(scores: list[float], states: torch.Tensor) -> list[float]:
    """From the definition."""
    found = []
    for i, score in enumerate(scores):
        above = [j for j, other in enumerate(scores) if other > score or (other == score and j < i)]
        likest = max((float(torch.cosine_similarity(states[i], states[j], dim=0)) for j in above), default=0.0)
        found.append(max(1 - max(likest, 0.0) ** 2, 1e-3))
    return found


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 99), st.sampled_from([1, 7, 1024]))
def test_novelty_is_what_it_says(scores: list[int], seed: int, rows: int) -> None:
    states = torch.randn(len(scores), 5, generator=torch.Generator().manual_seed(seed))
    states[::3] = states[0].clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS", rows)
        got = novelty(torch.tensor(scores, dtype=torch.float32), states)
    assert got.tolist() == pytest.approx(slow([float(score) for score in scores], states), abs=1e-4)


def test_copies_go_last_and_in_order() -> None:
    states = torch.eye(4).repeat(3, 1)
    scores = torch.linspace(2, 1, 12)
    ranked = (scores * novelty(scores, states)).argsort(descending=True)
    assert ranked.tolist() == list(range(12))
    assert novelty(scores, states)[4:].max() < 0.01
