"""What a caller may ask for, and how many tokens that is."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hired.core.budget import Budget, check_alpha, floor_share
from hired.errors import BudgetError, HiredError
from tests.support.layouts import layout_of


@given(st.integers(1, 1000), st.integers(0, 5000))
def test_floor_share_counts_in_decimal(thousandths: int, total: int) -> None:
    # The float nearest to 0.29 is below 0.29; 29 of 100 are asked for all the same.
    assert floor_share(thousandths / 1000, total) == thousandths * total // 1000


@pytest.mark.parametrize(("share", "total", "tokens"), [(0.29, 100, 29), (0.2, 2880, 576), (0.1, 32, 3), (1 / 3, 9, 3)])
def test_floor_share_examples(share: float, total: int, tokens: int) -> None:
    assert floor_share(share, total) == tokens


@given(st.fractions(Fraction(1, 500), 1, max_denominator=1000), st.integers(1, 200), st.integers(1, 200))
def test_share_is_of_all_partitions_before_unpadding(share: Fraction, width: int, height: int) -> None:
    layout = layout_of(width, height)
    allowed = math.floor(share * (1 + layout.grid[0] * layout.grid[1]) * 16)
    budget = Budget.parse(float(share))
    if share == 1 or allowed >= layout.tokens_full:
        assert budget.allowance(layout) is None
    elif allowed < 1:
        with pytest.raises(BudgetError, match="leaves no token"):
            budget.allowance(layout)
    else:
        assert budget.allowance(layout) == allowed


@given(st.integers(2, 400), st.integers(1, 200), st.integers(1, 200))
def test_tokens_are_per_image(tokens: int, width: int, height: int) -> None:
    layout = layout_of(width, height)
    expected = None if tokens >= layout.tokens_full else tokens
    assert Budget.parse(tokens).allowance(layout) == expected


def test_no_number_is_too_large() -> None:
    assert Budget.parse(10**400).allowance(layout_of(64, 64)) is None


def test_share_one_leaves_a_padded_picture_as_it_is() -> None:
    layout = layout_of(96, 10)
    assert Budget.parse(1).allowance(layout) is None
    assert Budget.parse(1.0).allowance(layout) is None
    # B covers R and the newlines of this picture although the share is below 1.
    assert layout.tokens_full < 0.9 * layout.partitions * layout.cells_per_partition
    assert Budget.parse(0.9).allowance(layout) is None


@pytest.mark.parametrize("value", [0.2, np.float32(0.5), np.float64(0.2), Fraction(1, 5), 1, 1.0, True + 1])
def test_numbers_of_any_kind_are_read(value: object) -> None:
    parsed = Budget.parse(value)
    assert (parsed.share is None) != (parsed.tokens is None)
    assert (parsed.share is None) == (float(value) > 1)  # type: ignore[arg-type]
    read = parsed.tokens if parsed.share is None else float(parsed.share)
    assert read == float(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [7, 7.0, np.int64(7), Fraction(7), np.float32(7)])
def test_whole_numbers_above_one_are_tokens(value: object) -> None:
    assert Budget.parse(value) == Budget(tokens=7)


@pytest.mark.parametrize(
    "value",
    [
        *(0, 0.0, -0.2, -3, 1.5, 7.25, math.nan, math.inf, -math.inf, Fraction(3, 2), Fraction(0), np.float32("nan")),
        *(True, False, "0.2", "", None, [0.2], {}, 1 + 0j, np.bool_(True), Decimal("NaN")),
    ],
    ids=repr,
)
def test_anything_else_is_an_error_of_ours(value: object) -> None:
    with pytest.raises(BudgetError, match="budget") as caught:
        Budget.parse(value)
    assert isinstance(caught.value, HiredError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0, 1, 0.5, 0.0, 1.0, np.float32(0.25), Fraction(1, 4)])
def test_alpha_in_range(value: object) -> None:
    assert check_alpha(value) == float(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, True, "0.5", None], ids=repr)
def test_alpha_out_of_range(value: object) -> None:
    with pytest.raises(BudgetError, match="alpha"):
        check_alpha(value)
