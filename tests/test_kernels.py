"""The kernels of a GPU choose what tensors choose, to the token; run by Triton's interpreter, on a CPU."""

import os
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hired.core.allocate import content_scores, of_full_image, share_out
from hired.core.choose import best
from hired.core.layout import Layout
from tests.support.layouts import layout_of

pytest.importorskip("triton", reason="needs Triton (make test-kernels)")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1 (make test-kernels)", allow_module_level=True)
from hired.core import kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def expected(scores: torch.Tensor, layout: Layout, total: int, alpha: float, first: torch.Tensor) -> list[int]:
    content = None
    if layout.partitions > 1:
        content = content_scores(first.view(1, *layout.cells), layout.rows, layout.columns)
    return best(scores, layout, share_out(total, alpha, layout.capacity, content), total).tolist()


def found(scores: torch.Tensor, layout: Layout, total: int, alpha: float, first: torch.Tensor) -> list[int]:
    there: Any = torch.device(DEVICE)
    full = of_full_image(total, alpha, layout.capacity)
    kept = kernels.kept(
        scores.to(there),
        layout.to(there),
        total=total,
        full=full,
        mass=first.to(there) if layout.partitions > 1 else None,
    )
    return kept.tolist()


@given(st.integers(1, 260), st.integers(1, 260), st.integers(0, 99), st.sampled_from([0, 2, 5]), st.data())
def test_same_tokens(width: int, height: int, seed: int, levels: int, data: st.DataObject) -> None:
    layout = layout_of(width, height)
    generator = torch.Generator().manual_seed(seed)
    scores, first = torch.rand(layout.tokens_full, generator=generator), torch.rand(16, generator=generator)
    if levels:  # ties, and nothing at all
        scores, first = (scores * levels).floor(), (first * levels).floor()
    total = data.draw(st.integers(1, layout.tokens_real))
    alpha = data.draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    assert found(scores, layout, total, alpha, first) == expected(scores, layout, total, alpha, first)


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0, 1e-38, 3e38])
def test_all_alike_go_by_their_place(value: float) -> None:
    layout = layout_of(64, 64)
    scores = torch.full((layout.tokens_full,), value)
    first = torch.ones(16)
    assert found(scores, layout, 9, 0.5, first) == expected(scores, layout, 9, 0.5, first)


def test_signs_and_zeros_stand_in_order() -> None:
    layout = layout_of(32, 32)
    scores = torch.linspace(-2, 2, layout.tokens_full)
    scores[::3] = 0.0
    scores[1::5] = -0.0
    for total in range(1, layout.tokens_real):
        assert found(scores, layout, total, 0.5, torch.ones(16)) == expected(scores, layout, total, 0.5, torch.ones(16))
