"""How a budget is divided: against a slow plain reference, and by its properties."""

from fractions import Fraction

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from hired.core.allocate import content_scores, divide, divided, share_out
from tests.support.layouts import CELLS, layout_of, slow_layout


def slow_divide(total: int, weights: list[Fraction], capacity: list[int]) -> list[int]:
    """`divide` in exact arithmetic, one step at a time."""
    quota = [Fraction(0)] * len(weights)
    second = [Fraction(0 if weight else cap) for weight, cap in zip(weights, capacity, strict=True)]
    for keys in (weights, second):
        open_ = {i for i, key in enumerate(keys) if key > 0 and capacity[i] > 0}
        while open_ and sum(quota) < total:
            left = total - sum(q for i, q in enumerate(quota) if i not in open_)
            per_weight = left / sum(keys[i] for i in open_)
            full = {i for i in open_ if per_weight * keys[i] >= capacity[i]}
            for i in full or open_:
                quota[i] = Fraction(capacity[i]) if full else per_weight * keys[i]
            if not full:
                break
            open_ -= full
    given_out = [q.numerator // q.denominator for q in quota]
    by_remainder = sorted(range(len(quota)), key=lambda i: (given_out[i] - quota[i], i))
    by_remainder = [i for i in by_remainder if given_out[i] < capacity[i]]
    for i in by_remainder[: total - sum(given_out)]:
        given_out[i] += 1
    return given_out


@st.composite
def problems(draw: st.DrawFn, most: int = 9) -> tuple[int, list[int], list[int]]:
    """(total, whole weights, capacity): small weights, so that ties and zeros are common."""
    count = draw(st.integers(1, 7))
    weights = draw(st.lists(st.integers(0, most), min_size=count, max_size=count))
    capacity = draw(st.lists(st.integers(0, 30), min_size=count, max_size=count))
    return draw(st.integers(0, sum(capacity))), weights, capacity


def run(total: int, weights: list[float], capacity: list[int]) -> list[int]:
    """As tensors divide, which is what numbers on the host must give as well."""
    found = divide(total, torch.tensor(weights, dtype=torch.float64), torch.tensor(capacity)).tolist()
    assert divided(total, weights, capacity) == found
    return found


@given(problems())
def test_divide_equals_the_plain_reference(problem: tuple[int, list[int], list[int]]) -> None:
    total, weights, capacity = problem
    assert run(total, list(map(float, weights)), capacity) == slow_divide(total, list(map(Fraction, weights)), capacity)


@given(problems(most=10**6))
def test_divide_equals_the_plain_reference_for_wide_weights(problem: tuple[int, list[int], list[int]]) -> None:
    total, weights, capacity = problem
    assert run(total, list(map(float, weights)), capacity) == slow_divide(total, list(map(Fraction, weights)), capacity)


@given(st.integers(0, 10**6), st.integers(1, 40), st.data())
def test_host_and_tensors_divide_alike(seed: int, count: int, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(count, generator=generator, dtype=torch.float64).pow(4).tolist()
    capacity = torch.randint(0, 577, (count,), generator=generator).tolist()
    run(data.draw(st.integers(0, sum(capacity))), weights, capacity)


def test_the_reference_itself() -> None:
    ones = [Fraction(1)] * 3
    assert slow_divide(10, ones, [9, 9, 9]) == [4, 3, 3]
    assert slow_divide(10, ones, [1, 9, 9]) == [1, 5, 4]
    assert slow_divide(10, [Fraction(0), Fraction(1), Fraction(0)], [3, 4, 6]) == [2, 4, 4]
    assert slow_divide(5, [Fraction(0)] * 2, [4, 4]) == [3, 2]
    assert slow_divide(0, ones, [1, 1, 1]) == [0, 0, 0]


reals = st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 40)), min_size=1, max_size=8)


@given(reals, st.data())
def test_sums_are_exact_and_caps_hold(pairs: list[tuple[float, int]], data: st.DataObject) -> None:
    weights, capacity = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    total = data.draw(st.integers(0, sum(capacity)))
    got = run(total, weights, capacity)
    assert sum(got) == total
    assert all(0 <= share <= cap for share, cap in zip(got, capacity, strict=True))


@given(reals, st.data())
def test_shares_stay_within_one_of_their_quota_without_caps(
    pairs: list[tuple[float, int]], data: st.DataObject
) -> None:
    weights = [pair[0] for pair in pairs]
    total = data.draw(st.integers(0, 100))
    if not sum(weights):
        return
    got = run(total, weights, [1000] * len(weights))
    for share, weight in zip(got, weights, strict=True):
        assert abs(share - total * weight / sum(weights)) < 1 + 1e-9


@given(problems(), st.permutations(range(7)))
def test_a_permutation_of_the_tiles_permutes_their_shares(
    problem: tuple[int, list[int], list[int]], order: list[int]
) -> None:
    total, weights, capacity = problem
    # Distinct irrational-like weights: no ties, which go by index on purpose.
    values = [weight + (index + 1) ** 0.5 / 7 for index, weight in enumerate(weights)]
    order = [place for place in order if place < len(values)]
    got = run(total, values, capacity)
    moved = run(total, [values[i] for i in order], [capacity[i] for i in order])
    assert moved == [got[i] for i in order]


@example(problem=(2, [1, 4, 1], [9, 9, 9]), scale=0.1)
@example(problem=(2, [1, 4, 1], [9, 9, 9]), scale=1e-30)
@given(problems(), st.sampled_from([2.0**-40, 1e-6, 0.1, 0.3, 1 / 3, 3.0, 7.7, 1e6, 2.0**40]))
def test_the_scale_of_the_scores_does_not_matter(problem: tuple[int, list[int], list[int]], scale: float) -> None:
    total, weights, capacity = problem
    assert run(total, [weight * scale for weight in weights], capacity) == run(
        total, list(map(float, weights)), capacity
    )


@given(problems())
def test_the_same_on_every_run(problem: tuple[int, list[int], list[int]]) -> None:
    total, weights, capacity = problem
    first = run(total, list(map(float, weights)), capacity)
    assert all(run(total, list(map(float, weights)), capacity) == first for _ in range(3))


def test_equal_remainders_go_to_the_lower_index() -> None:
    assert run(2, [1.0, 1.0, 1.0], [9, 9, 9]) == [1, 1, 0]
    # Quotas 1/3, 4/3, 1/3: three equal remainders, though binary fractions tell them apart.
    assert run(2, [1.0, 4.0, 1.0], [9, 9, 9]) == [1, 1, 0]
    assert run(2, [0.1, 0.4, 0.1], [9, 9, 9]) == [1, 1, 0]


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(sum),
    st.fractions(0, 1, max_denominator=100),
    st.data(),
)
def test_share_out_gives_the_full_image_its_part(capacity: list[int], alpha: Fraction, data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(capacity)))
    tiles = len(capacity) - 1
    scores = torch.tensor(data.draw(st.lists(st.floats(0, 10), min_size=tiles, max_size=tiles)), dtype=torch.float64)
    got = share_out(total, float(alpha), tuple(capacity), scores if tiles else None).tolist()
    assert sum(got) == total
    assert all(0 <= share <= cap for share, cap in zip(got, capacity, strict=True))
    wanted = alpha.numerator * total // alpha.denominator
    # floor(alpha B), unless it has fewer tokens, or the tiles cannot hold the rest.
    assert got[0] == min(max(wanted, total - sum(capacity[1:])), capacity[0])


@pytest.mark.parametrize(
    ("total", "alpha", "capacity", "expected"),
    [
        (10, 0.5, (16, 16, 16), [5, 3, 2]),
        (40, 0.5, (16, 16, 16), [16, 12, 12]),  # the full image is full: its excess goes to the tiles
        (30, 0.1, (16, 8, 8), [14, 8, 8]),  # the tiles are full: their excess goes to the full image
        (7, 0.0, (16, 4, 4), [0, 4, 3]),
        (7, 1.0, (16, 4, 4), [7, 0, 0]),
        (48, 0.5, (16, 16, 16), [16, 16, 16]),
    ],
)
def test_what_one_side_cannot_use_goes_to_the_other(
    total: int, alpha: float, capacity: tuple[int, ...], expected: list[int]
) -> None:
    assert share_out(total, alpha, capacity, torch.ones(2, dtype=torch.float64)).tolist() == expected


def slow_scores(mass: list[list[float]], width: int, height: int) -> list[float]:
    """Area-weighted attention mass of every tile: all rectangles in pixels of the padded canvas."""
    plain = slow_layout(width, height)
    side = plain.canvas[0] // plain.grid[1]
    left = (plain.canvas[0] - plain.shown[0]) // 2
    top = (plain.canvas[1] - plain.shown[1]) // 2
    scores = []
    for y in range(0, plain.canvas[1], side):
        for x in range(0, plain.canvas[0], side):
            score = 0.0
            for r in range(CELLS):
                for c in range(CELLS):
                    x0, x1 = (left + plain.shown[0] * k / CELLS for k in (c, c + 1))
                    y0, y1 = (top + plain.shown[1] * k / CELLS for k in (r, r + 1))
                    wide = max(0.0, min(x1, x + side) - max(x0, x))
                    high = max(0.0, min(y1, y + side) - max(y0, y))
                    score += mass[r][c] * wide * high / ((x1 - x0) * (y1 - y0))
            scores.append(score)
    return scores


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**16))
def test_content_is_the_area_weighted_mass_under_each_tile(width: int, height: int, seed: int) -> None:
    attention = torch.rand(3, CELLS, CELLS, generator=torch.Generator().manual_seed(seed))
    layout = layout_of(width, height)
    got = content_scores(attention, layout.rows, layout.columns)
    expected = slow_scores(attention.double().sum(0).tolist(), width, height)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    # The tiles show the picture once, so no attention is lost or counted twice.
    assert float(got.sum()) == pytest.approx(float(attention.sum()), rel=1e-5)


def test_content_of_a_padded_canvas_by_hand() -> None:
    # 192 x 64 stands as 96 x 32 on three tiles: their borders are at 1/3 and 2/3 of the width.
    layout = layout_of(192, 64)
    assert layout.grid == (1, 3)
    attention = torch.zeros(1, CELLS, CELLS)
    attention[0, :, 1] = 1.0  # the cells from 1/4 to 2/4 of the width: a third of them in the first tile
    got = content_scores(attention, layout.rows, layout.columns).tolist()
    assert got == pytest.approx([4 / 3, 8 / 3, 0.0])


def test_content_sums_half_precision_heads_in_float32() -> None:
    attention = torch.full((37, CELLS, CELLS), 1e-3, dtype=torch.float16)
    layout = layout_of(64, 64)
    got = content_scores(attention, layout.rows, layout.columns)
    expected = float(torch.tensor(1e-3, dtype=torch.float16)) * 37 * 4
    assert got.tolist() == pytest.approx([expected] * 4, rel=1e-6)
