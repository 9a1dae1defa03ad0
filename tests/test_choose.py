"""Which tokens are kept: order of importance, exact budgets, newlines, and the methods on bare attention rows."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hired.core.allocate import content_scores, share_out
from hired.core.choose import by_shares, ranks, take
from hired.core.image import Attention, Image
from hired.core.layout import STRUCTURE, Layout
from hired.methods import METHODS, resolve
from hired.methods.base import merged_of
from hired.methods.baselines import Overview, Random, Uniform
from hired.methods.hired import HiRED
from tests.support.layouts import layout_of

SIZES = [(64, 64), (96, 10), (10, 96), (70, 50), (20, 90), (96, 64), (30, 31), (1, 1), (3, 150)]
sizes = st.sampled_from(SIZES)
coarse = st.integers(1, 6)
"""Few distinct scores, so that ties are everywhere."""


def attention_of(layout: Layout, seed: int, levels: int | None = None) -> Attention:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(2, layout.partitions, 2, layout.cells_per_partition, generator=generator)
    if levels is not None:
        rows = (rows * levels).ceil() / 8  # sums of eighths are exact: ties stay ties
    return Attention(first=rows[0, 0], last=rows[1])


def image_of(layout: Layout, total: int, seed: int = 0, newlines: str = "drop", levels: int | None = None) -> Image:
    """An image with all that any method reads."""
    generator = torch.Generator().manual_seed(seed)
    cells = layout.cells_per_partition
    attention = replace(
        attention_of(layout, seed, levels),
        middle=torch.rand(layout.partitions, 2, cells, generator=generator),
        received=torch.rand(layout.partitions, 2, cells, generator=generator),
        keys=torch.randn(layout.partitions, 2, 5, cells, generator=generator),
    )
    return Image(
        layout,
        attention,
        total,
        newlines,  # type: ignore[arg-type]
        states=torch.randn(layout.tokens_full, 6, generator=generator),
        features=torch.randn(layout.tokens_full, 7, generator=generator),
        question=torch.randn(3, 7, generator=generator),
    )


def kept_by_partition(layout: Layout, rows: list[int]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {p: set() for p in range(layout.partitions)}
    for row in rows:
        partition = int(layout.partition[row])
        if partition != STRUCTURE:
            found[partition].add(row)
    return found


def ranking(layout: Layout, attention: Attention, partition: int) -> list[int]:
    """Real tokens of one partition by the CLS row of the final layer, the earlier token first among equals."""
    assert attention.last is not None
    score = attention.last[partition].double().sum(0)
    rows = [row for row in range(layout.tokens_full) if int(layout.partition[row]) == partition]
    return sorted(rows, key=lambda row: (-float(score[layout.cell[row]]), row))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 3)), min_size=1, max_size=40))
def test_ranks_are_places_inside_the_partition(tokens: list[tuple[int, int]]) -> None:
    tokens = [(score, min(of, len(tokens) - 1)) for score, of in tokens]
    scores, partition = (torch.tensor(column) for column in zip(*tokens, strict=True))
    got = ranks(scores.float(), partition).tolist()
    for index, (score, of) in enumerate(tokens):
        better = sum(
            (other > score or (other == score and place < index)) and where == of
            for place, (other, where) in enumerate(tokens)
        )
        assert of == STRUCTURE or got[index] == better


@given(sizes, st.integers(0, 99), coarse, st.data())
def test_hired_keeps_the_top_of_every_partition(
    size: tuple[int, int], seed: int, levels: int, data: st.DataObject
) -> None:
    layout = layout_of(*size)
    total = data.draw(st.integers(1, layout.tokens_full - 1))
    alpha = data.draw(st.fractions(0, 1, max_denominator=20))
    image = image_of(layout, total, seed, levels=levels)
    rows = HiRED(float(alpha)).select(image).tolist()
    assert rows == sorted(set(rows))
    assert len(rows) == min(total, layout.tokens_real)
    kept = kept_by_partition(layout, rows)
    assert sum(map(len, kept.values())) == len(rows), "a newline was kept"
    for partition, found in kept.items():
        assert found == set(ranking(layout, image.attention, partition)[: len(found)])
    # The full image's share is floor(alpha B), unless it or the tiles cannot hold theirs.
    patches, tiles = len(rows), sum(layout.capacity[1:])
    wanted = alpha.numerator * patches // alpha.denominator
    assert len(kept[0]) == min(max(wanted, patches - tiles), layout.capacity[0])
    # The tiles' shares are those of their content.
    assert image.attention.first is not None
    content = content_scores(image.attention.first.view(2, *layout.cells), layout.rows, layout.columns)
    shares = share_out(patches, float(alpha), layout.capacity, content).tolist()
    assert [len(kept[p]) for p in range(layout.partitions)] == shares


@given(sizes, st.integers(0, 99), coarse)
def test_a_larger_share_of_a_partition_is_a_superset(size: tuple[int, int], seed: int, levels: int) -> None:
    layout = layout_of(*size)
    totals = range(1, layout.tokens_full, max(1, layout.tokens_full // 6))
    kept = [
        kept_by_partition(layout, HiRED().select(image_of(layout, total, seed, levels=levels)).tolist())
        for total in totals
    ]
    for small in kept:
        for large in kept:
            for partition in small:
                if len(small[partition]) <= len(large[partition]):
                    assert small[partition] <= large[partition]


@given(sizes, st.integers(0, 99), coarse, st.data())
def test_any_prefix_of_the_order_keeps_the_top_of_every_partition(
    size: tuple[int, int], seed: int, levels: int, data: st.DataObject
) -> None:
    layout = layout_of(*size)
    attention = attention_of(layout, seed, levels)
    assert attention.last is not None
    shares = [data.draw(st.integers(0, capacity)) for capacity in layout.capacity]
    scores = attention.last.sum(1)[layout.partition.clamp(min=0), layout.cell.clamp(min=0)]
    keys = by_shares(scores, layout.partition, torch.tensor(shares))
    assert (keys.isinf() == (layout.partition == STRUCTURE)).all()
    order = torch.argsort(keys, stable=True).tolist()
    for length in range(0, layout.tokens_real + 1, 5):
        for partition, found in kept_by_partition(layout, order[:length]).items():
            assert found == set(ranking(layout, attention, partition)[: len(found)])
    exact = kept_by_partition(layout, order[: sum(shares)])
    assert [len(exact[partition]) for partition in range(layout.partitions)] == shares


@given(sizes, st.integers(0, 99), coarse, st.sampled_from([2.0**-20, 0.25, 2.0, 2.0**20]), st.data())
def test_the_scale_of_attention_does_not_matter(
    size: tuple[int, int], seed: int, levels: int, scale: float, data: st.DataObject
) -> None:
    layout = layout_of(*size)
    image = image_of(layout, data.draw(st.integers(1, layout.tokens_full - 1)), seed, levels=levels)
    assert image.attention.first is not None
    assert image.attention.last is not None
    scaled = Attention(image.attention.first * scale, image.attention.last * scale)
    moved = HiRED().select(Image(layout, scaled, image.total, "drop"))
    assert moved.tolist() == HiRED().select(image).tolist()


@given(st.integers(0, 99), st.integers(1, 83), st.permutations(range(4)))
def test_a_permutation_of_the_tiles_permutes_what_is_kept(seed: int, total: int, order: list[int]) -> None:
    # Four tiles of a square picture without padding; each covers a quarter of the full image's 4 x 4 cells.
    layout = layout_of(64, 64)
    attention = attention_of(layout, seed)
    assert attention.first is not None
    assert attention.last is not None
    quarters = attention.first.view(2, 2, 2, 2, 2).transpose(2, 3).reshape(2, 4, 4)
    moved_first = quarters[:, order].view(2, 2, 2, 2, 2).transpose(2, 3).reshape(2, 16)
    tiles = [1 + place for place in order]
    moved = Attention(moved_first, attention.last[[0, *tiles]])
    plain = kept_by_partition(layout, HiRED().select(Image(layout, attention, total, "drop")).tolist())
    other = kept_by_partition(layout, HiRED().select(Image(layout, moved, total, "drop")).tolist())

    def cells(rows: set[int]) -> set[int]:
        return {int(layout.cell[row]) for row in rows}

    assert cells(other[0]) == cells(plain[0])
    for place, tile in enumerate(tiles):
        assert cells(other[1 + place]) == cells(plain[tile])


def slow_newlines(layout: Layout, order: list[int], total: int) -> set[int]:
    """`newlines="keep"` one token at a time: the longest prefix that fits, then one token of an open row."""
    newline_of = {
        int(layout.line[row]): row for row in range(layout.tokens_full) if int(layout.partition[row]) == STRUCTURE
    }
    kept: set[int] = set()

    def cost(row: int) -> set[int]:
        line = int(layout.line[row])
        return {row} if line == STRUCTURE else {row, newline_of[line]} - kept

    for place, row in enumerate(order):
        if len(kept) + len(cost(row)) > total:
            cheap = [other for other in order[place:] if len(cost(other)) == 1]
            if len(kept) < total and cheap:
                kept |= cost(cheap[0])
            break
        kept |= cost(row)
    if len(kept) < total:
        kept.add(min(row for row in newline_of.values() if row not in kept))
    return kept


@given(sizes, st.integers(0, 99), coarse, st.data())
def test_newlines_of_kept_rows_are_kept_within_the_budget(
    size: tuple[int, int], seed: int, levels: int, data: st.DataObject
) -> None:
    layout = layout_of(*size)
    total = data.draw(st.integers(1, layout.tokens_full - 1))
    rows = HiRED().select(image_of(layout, total, seed, "keep", levels)).tolist()
    assert rows == sorted(set(rows))
    assert len(rows) == total
    newlines = {int(layout.line[row]) for row in rows if int(layout.partition[row]) == STRUCTURE}
    patches = [row for row in rows if int(layout.partition[row]) != STRUCTURE]
    lines = {int(layout.line[row]) for row in patches} - {STRUCTURE}
    assert lines <= newlines
    if newlines - lines:  # one newline alone, and only when nothing else fits in its place
        assert len(newlines - lines) == 1
        left = set(range(layout.tokens_full)) - set(rows)
        assert not any(int(layout.partition[row]) == 0 for row in left)
        assert not any(int(layout.line[row]) in lines for row in left)


@given(sizes, st.integers(0, 99), st.data())
def test_newlines_against_a_plain_reference(size: tuple[int, int], seed: int, data: st.DataObject) -> None:
    layout = layout_of(*size)
    total = data.draw(st.integers(1, layout.tokens_full - 1))
    real = [row for row in range(layout.tokens_full) if int(layout.partition[row]) != STRUCTURE]
    order = [real[place] for place in torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))]
    keys = torch.full((layout.tokens_full,), torch.inf, dtype=torch.float64)
    keys[order] = torch.arange(len(order), dtype=torch.float64)
    assert set(take(keys, layout, total, "keep").tolist()) == slow_newlines(layout, order, total)
    assert take(keys, layout, total, "drop").tolist() == sorted(order[:total])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("newlines", ["drop", "keep"])
@pytest.mark.parametrize("size", SIZES)
def test_every_method_every_total(name: str, newlines: str, size: tuple[int, int]) -> None:
    layout = layout_of(*size)
    method = resolve(name, "paper", 0.5)
    # Those that compare all tokens take longer; they do not depend on the total in other ways.
    step = max(1, layout.tokens_full // 12) if {"states", "features"} & set(method.reads) else 1
    for total in {*range(1, layout.tokens_full, step), layout.tokens_real, layout.tokens_full - 1} & set(
        range(1, layout.tokens_full)
    ):
        image = image_of(layout, total, newlines=newlines)
        rows = method.select(image).tolist()
        assert rows == sorted(set(rows))
        assert 0 <= rows[0] <= rows[-1] < layout.tokens_full if rows else name == "published"
        assert method.select(image).tolist() == rows, "another choice on a second run"
        if getattr(method, "exact", True):
            assert len(rows) == (total if newlines == "keep" else min(total, layout.tokens_real))
        elif name == "overview":
            assert len(rows) == min(total, layout.capacity[0])
        else:
            assert len(rows) <= total
        weights = merged_of(method, image, torch.tensor(rows))
        if weights is not None:
            assert weights.shape == (len(rows), layout.tokens_full)
            newline = [place for place, row in enumerate(rows) if int(layout.partition[row]) == STRUCTURE]
            assert torch.equal(weights[newline], torch.eye(layout.tokens_full)[[rows[place] for place in newline]])
            assert not (weights[:, layout.partition == STRUCTURE].sum(1) > 0)[
                [place for place in range(len(rows)) if place not in newline]
            ].any(), "a newline's place, where nothing stands, was merged"


NESTED = ("random", "scope", "divprune", "otprune", "cdpruner")
"""Methods whose choice under a smaller budget is part of that under a larger one."""


@pytest.mark.parametrize("name", NESTED)
def test_smaller_budgets_keep_a_part_of_what_larger_ones_keep(name: str) -> None:
    layout = layout_of(96, 64)
    method = resolve(name, "paper", 0.5)
    before: set[int] = set()
    for total in range(1, layout.tokens_real + 1, 7):
        rows = set(method.select(image_of(layout, total)).tolist())
        assert before <= rows
        before = rows


@given(sizes, st.data())
def test_uniform_is_even(size: tuple[int, int], data: st.DataObject) -> None:
    layout = layout_of(*size)
    total = data.draw(st.integers(2, layout.tokens_real))
    rows = Uniform().select(image_of(layout, min(total, layout.tokens_full - 1))).tolist()
    real = [row for row in range(layout.tokens_full) if int(layout.partition[row]) != STRUCTURE]
    places = [real.index(row) for row in rows]
    gaps = {b - a for a, b in pairwise(places)}
    assert max(gaps) - min(gaps) <= 1


def test_random_depends_on_its_seed_only() -> None:
    image = image_of(layout_of(64, 64), 20)
    state = torch.random.get_rng_state()
    first = Random(seed=1).select(image).tolist()
    torch.rand(3)
    assert Random(seed=1).select(image).tolist() == first
    assert Random(seed=2).select(image).tolist() != first
    torch.random.set_rng_state(state)
    Random(seed=3).select(image)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator was used"


def test_overview_shows_the_full_image_only() -> None:
    layout = layout_of(96, 10)
    for total in (1, 7, 16, 20):
        rows = Overview().select(image_of(layout, total))
        assert (layout.partition[rows] == 0).all()


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.reads])
def test_a_method_that_is_given_no_rows_says_so(name: str) -> None:
    with pytest.raises(RuntimeError, match="layer"):
        resolve(name, "paper", 0.5).select(Image(layout_of(64, 64), Attention(), 5, "drop"))


def test_resolve_gives_alpha_to_those_that_take_it() -> None:
    assert resolve("hired", "paper", Fraction(1, 4)) == HiRED(0.25)  # type: ignore[arg-type]
    assert resolve("hired", "published", 0.25) == METHODS["published"](alpha=0.25)  # type: ignore[call-arg]
    assert resolve("uniform", "paper", 0.25) == Uniform()
    own = Random(seed=4)
    assert resolve(own, "paper", 0.5) is own
