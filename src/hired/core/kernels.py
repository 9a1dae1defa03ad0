"""The choice of `hired.core.allocate.divide` and `hired.core.choose.best` as two launches, for GPUs; needs Triton.

The tensors' code says what is right: the same shares and the same tokens come out, ties included. Sums of float64 may
round in another order, which neither lets change a share: see `divide`.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hired.core.allocate import NOTHING
from hired.core.layout import Layout
from hired.core.slots import Slots

MOST_PARTITIONS = 128
MOST_SLOTS = 4096
"""What a program holds at once of its partition's tokens; and of pairs of partitions, 128 x 128."""


def fits(layout: Layout) -> bool:
    """Whether the kernels are made for a picture of this many partitions and tokens."""
    return layout.partitions <= MOST_PARTITIONS and max(layout.capacity) <= MOST_SLOTS


def kept(scores: Tensor, layout: Layout, *, total: int, full: int, mass: Tensor | None) -> Tensor:
    """The tokens that the budget keeps, from the attention itself. Waits for nothing.

    Args:
        scores: (T,) float32 importance of the tokens.
        layout: the image, on the device of `scores`.
        total: tokens to keep, at most R.
        full: how many of them in the full image; the others are divided by the mass that each sub-image covers.
        mass: (N,) float32 attention of the full image's cells in the initial layer; None where there are no sub-images.

    Returns:
        Sorted (total,) int64 indices into the image's untouched tokens.
    """
    slots: Slots = layout.slots
    partitions, width = slots.token.shape
    rows, columns = layout.overlaps
    marks = torch.empty(layout.tokens_full, dtype=torch.int8, device=scores.device)
    _mark[(partitions,)](
        scores,
        slots.token,
        slots.capacity,
        scores if mass is None else mass,
        rows,
        columns,
        marks,
        total,
        full,
        layout.tokens_full,
        width,
        layout.grid[1],
        *layout.cells,
        nothing=NOTHING,
        PARTITIONS=partitions,
        PAIRS=triton.next_power_of_2(max(partitions - 1, 1)),
        SLOTS=triton.next_power_of_2(width),
        DOWN=triton.next_power_of_2(layout.cells[0]),
        ACROSS=triton.next_power_of_2(layout.cells[1]),
    )
    found = torch.empty(total, dtype=torch.int64, device=scores.device)
    _gather[(1,)](marks, layout.partition, found, layout.tokens_full, BLOCK=2048)
    return found


@triton.jit  # type: ignore[untyped-decorator]
def _even(value: Any) -> Any:
    """Rounded to a whole number, halves to the even one; for 0 <= value < 2 ** 52."""
    low = tl.floor(value)
    rest = value - low
    odd = (low.to(tl.int64) & 1) == 1
    return tl.where((rest > 0.5) | ((rest == 0.5) & odd), low + 1.0, low)


@triton.jit  # type: ignore[untyped-decorator]
def _fill(total: Any, weights: Any, room: Any, place: Any, SIZE: tl.constexpr) -> Any:
    """`hired.core.allocate._fill` without a sort: every partition looks at all others."""
    positive = weights > 0
    ratio = tl.where(positive, room / tl.where(positive, weights, 1.0), 0.0)
    held = tl.where(positive, room, 0.0)
    theirs, own = ratio[None, :], ratio[:, None]
    before = (theirs < own) | ((theirs == own) & (place[None, :] < place[:, None]))
    filled = tl.sum(tl.where(before, held[None, :], 0.0), axis=1)
    still = tl.sum(tl.where(before, 0.0, weights[None, :]), axis=1)
    level = (total - filled) / tl.where(still > 0, still, 1.0)
    fits = (level <= ratio) & (still > 0)
    rank = tl.sum(before.to(tl.int32), axis=1)
    first = tl.min(tl.where(fits, rank, SIZE), axis=0)
    found = tl.sum(tl.where(rank == first, level, 0.0), axis=0)
    found = tl.where(first < SIZE, found, tl.max(ratio, axis=0))
    return tl.minimum(held, tl.maximum(found, 0.0) * weights)


@triton.jit  # type: ignore[untyped-decorator]
def _divide(total: Any, weights: Any, capacity: Any, place: Any, nothing: tl.constexpr, SIZE: tl.constexpr) -> Any:
    """`hired.core.allocate.divide`."""
    room = capacity.to(tl.float64)
    weights = tl.where(capacity > 0, weights, 0.0)
    whole = tl.sum(weights, axis=0)
    weights = weights / tl.where(whole > 0, whole, 1.0)
    weights = tl.where(weights > nothing, weights, 0.0)
    wanted = total.to(tl.float64)
    quota = _fill(wanted, weights, room, place, SIZE)
    others = tl.where(weights > 0, 0.0, room)
    quota += _fill(wanted - tl.sum(quota, axis=0), others, room - quota, place, SIZE)

    nearest = _even(quota)
    quota = tl.where(tl.abs(quota - nearest) < 1e-9 * tl.maximum(wanted, 1.0), nearest, quota)
    base = tl.minimum(tl.floor(quota).to(tl.int64), capacity)
    fraction = _even((quota - base.to(tl.float64)) * 4294967296.0)
    fraction = tl.where(base < capacity, fraction, -1.0)
    theirs, own = fraction[None, :], fraction[:, None]
    ahead = (theirs > own) | ((theirs == own) & (place[None, :] < place[:, None]))
    rank = tl.sum(ahead.to(tl.int64), axis=1)
    return base + (rank < total - tl.sum(base, axis=0)).to(tl.int64)


@triton.jit  # type: ignore[untyped-decorator]
def _content(
    mass: Any, rows: Any, columns: Any, across: Any, cells_down: Any, cells_across: Any, place: Any,
    TILES: tl.constexpr, DOWN: tl.constexpr, ACROSS: tl.constexpr,
) -> Any:  # fmt: skip
    """`hired.core.allocate.content_scores`, 0 behind the last sub-image."""
    down, over = tl.arange(0, DOWN), tl.arange(0, ACROSS)
    inside = (down[:, None] < cells_down) & (over[None, :] < cells_across)
    seen = tl.load(mass + down[:, None] * cells_across + over[None, :], mask=inside, other=0.0).to(tl.float64)
    found = tl.zeros_like(place).to(tl.float64)
    for tile in range(TILES):
        row, column = tile // across, tile % across
        high = tl.load(rows + row * cells_down + down, mask=down < cells_down, other=0.0)
        wide = tl.load(columns + column * cells_across + over, mask=over < cells_across, other=0.0)
        covered = tl.sum(tl.sum(seen * wide[None, :], axis=1) * high, axis=0)
        found = tl.where(place == tile, covered, found)
    return found


@triton.jit  # type: ignore[untyped-decorator]
def _mark(
    scores: Any, tokens: Any, capacities: Any, mass: Any, rows: Any, columns: Any, marks: Any,
    total: Any, full: Any, count: Any, width: Any, across: Any, cells_down: Any, cells_across: Any,
    nothing: tl.constexpr, PARTITIONS: tl.constexpr, PAIRS: tl.constexpr, SLOTS: tl.constexpr,
    DOWN: tl.constexpr, ACROSS: tl.constexpr,
) -> None:  # fmt: skip
    """One program a partition: its share, and a 1 for each of its best tokens, a 0 for the others."""
    partition = tl.program_id(0)
    share = full.to(tl.int64)
    if PARTITIONS > 1:
        place = tl.arange(0, PAIRS)
        there = place < PARTITIONS - 1
        capacity = tl.load(capacities + 1 + place, mask=there, other=0)
        weights = _content(mass, rows, columns, across, cells_down, cells_across, place, PARTITIONS - 1, DOWN, ACROSS)
        shares = _divide((total - full).to(tl.int64), weights, capacity, place, nothing, PAIRS)
        own = tl.sum(tl.where(place == partition - 1, shares, 0), axis=0)
        share = tl.where(partition == 0, share, own)

    slot = tl.arange(0, SLOTS)
    token = tl.load(tokens + partition * width + slot, mask=slot < width, other=count)
    there = token < count
    # + 0.0: both zeros are one. Bits of floats, the sign turned, stand in the order of the floats.
    bits = (tl.load(scores + token, mask=there, other=0.0) + 0.0).to(tl.int32, bitcast=True)
    key = tl.where(bits < 0, ~bits.to(tl.int64), bits.to(tl.int64) + 2147483648)
    key = tl.where(there, tl.where(bits < 0, key & 2147483647, key), -1)
    # The largest threshold that `share` keys reach.
    low = share * 0
    for step in range(32):
        trial = low + (share * 0 + 1 << (31 - step))
        enough = tl.sum((key >= trial).to(tl.int64), axis=0) >= share
        low = tl.where(enough, trial, low)
    above, ties = key > low, key == low
    left = share - tl.sum(above.to(tl.int64), axis=0)
    chosen = above | (ties & (tl.cumsum(ties.to(tl.int64), axis=0) <= left))
    chosen = chosen & (share > 0)
    tl.store(marks + token, chosen.to(tl.int8), mask=there)


@triton.jit  # type: ignore[untyped-decorator]
def _gather(marks: Any, partitions: Any, found: Any, count: Any, BLOCK: tl.constexpr) -> None:
    """The places of the ones, in order; what stands at tokens of no partition means nothing."""
    before = tl.zeros((), dtype=tl.int64)
    for start in range(0, count, BLOCK):
        place = start + tl.arange(0, BLOCK)
        there = place < count
        inside = tl.load(partitions + place, mask=there, other=-1) >= 0
        one = (tl.load(marks + place, mask=there & inside, other=0) == 1).to(tl.int64)
        tl.store(found + before + tl.cumsum(one, axis=0) - 1, place.to(tl.int64), mask=one == 1)
        before += tl.sum(one, axis=0)
