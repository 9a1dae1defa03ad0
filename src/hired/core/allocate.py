"""How a budget is divided among the partitions of one image (paper, Algorithm 1, lines on N_p)."""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from hired.core.budget import floor_share
from hired.core.transfer import moved_to

NOTHING = 1e-30
"""Weights at most this share of their sum are zero."""


def content_scores(attention: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Visual content of every sub-image: the full image's attention mass inside the rectangle it covers.

    Args:
        attention: (heads, cell rows, cell columns), the CLS row of the initial layer over the full image.
        rows: (grid rows, cell rows) float64 shares from `Layout.tile_weights`, on the same device.
        columns: (grid columns, cell columns) float64, likewise.

    Returns:
        (grid rows * grid columns,) float64, sub-images row by row.
    """
    mass = attention.float().sum(0).to(torch.float64)
    return (rows @ mass @ columns.T).flatten()


def divide(total: int, weights: Tensor, capacity: Tensor) -> Tensor:
    """Divides `total` tokens in proportion to `weights`, by largest remainder, never above `capacity`.

    What a capped partition cannot use goes to the others in proportion to their weights; partitions of weight
    zero receive something only when all others are full, in proportion to their capacity. Ties in the
    remainder go to the lower index. No value leaves the device.

    Args:
        total: tokens to give out, at most `capacity.sum()`.
        weights: (K,) float64, non-negative.
        capacity: (K,) int64, non-negative.

    Returns:
        (K,) int64 with sum `total` and each entry at most its capacity.
    """
    room = capacity.to(torch.float64)
    weights = torch.where(capacity > 0, weights, torch.zeros_like(weights))
    whole = weights.sum()
    weights = weights / torch.where(whole > 0, whole, torch.ones_like(whole))
    # What is nothing beside the others counts as nothing: its ratios would overflow.
    weights = torch.where(weights > NOTHING, weights, torch.zeros_like(weights))
    quota = _fill(torch.full_like(whole, float(total)), weights, room)
    quota = quota + _fill(total - quota.sum(), torch.where(weights > 0, torch.zeros_like(room), room), room - quota)
    return _largest_remainder(total, quota, capacity)


def _fill(total: Tensor, weights: Tensor, room: Tensor) -> Tensor:
    """Real-valued shares min(room, level * weights) whose sum is `total`, or all the room of positive weights."""
    zero = torch.zeros_like(room)
    positive = weights > 0
    ratio = torch.where(positive, room / torch.where(positive, weights, torch.ones_like(weights)), zero)
    ratio, order = torch.sort(ratio, stable=True)
    filled = torch.where(positive, room, zero)[order].cumsum(0)
    open_weight = weights[order].flip(0).cumsum(0).flip(0)
    before = torch.cat((zero[:1], filled[:-1]))
    level = (total - before) / torch.where(open_weight > 0, open_weight, torch.ones_like(open_weight))
    fits = (level <= ratio) & (open_weight > 0)
    # The first index at which the level no longer passes the next cap; none: every cap is reached.
    first = torch.where(fits.any(), level.gather(0, fits.to(torch.uint8).argmax(0, keepdim=True))[0], ratio[-1])
    return torch.minimum(torch.where(positive, room, zero), first.clamp(min=0.0) * weights)


def _largest_remainder(total: int, quota: Tensor, capacity: Tensor) -> Tensor:
    """Rounds `quota` to whole numbers with sum `total`, giving the largest fractions their next unit first."""
    # A quota within rounding of a whole number is that number, so that scaling all scores changes nothing.
    nearest = quota.round()
    quota = torch.where((quota - nearest).abs() < 1e-9 * max(total, 1), nearest, quota)
    base = torch.minimum(quota.floor().to(torch.int64), capacity)
    # Equal fractions must compare equal whatever their rounding: ties go by index.
    fraction = ((quota - base) * 2**32).round()
    fraction = torch.where(base < capacity, fraction, torch.full_like(quota, -1.0))
    order = torch.argsort(fraction, descending=True, stable=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
    return base + (place < total - base.sum()).to(torch.int64)


def divided(total: int, weights: Sequence[float], capacity: Sequence[int]) -> list[int]:
    """What `divide` gives, worked out on the host: for a few partitions a hundredth of the time of its tensors."""
    weights = [weight if room > 0 else 0.0 for weight, room in zip(weights, capacity, strict=True)]
    whole = math.fsum(weights)
    weights = [weight / whole if whole > 0 else weight for weight in weights]
    weights = [weight if weight > NOTHING else 0.0 for weight in weights]
    quota = _filled(total, weights, capacity)
    if not all(weights):
        left = [room - filled for room, filled in zip(capacity, quota, strict=True)]
        others = [0.0 if weight else float(room) for weight, room in zip(weights, capacity, strict=True)]
        quota = list(map(sum, zip(quota, _filled(total - math.fsum(quota), others, left), strict=True)))
    return _whole(total, quota, capacity)


def _filled(total: float, weights: Sequence[float], room: Sequence[float]) -> list[float]:
    """As `_fill`."""
    order = sorted((i for i, weight in enumerate(weights) if weight > 0), key=lambda i: room[i] / weights[i])
    still = [*accumulate(weights[i] for i in reversed(order))][::-1]
    level, before = 0.0, 0.0
    for index, of in zip(order, still, strict=True):
        level, most = (total - before) / of, room[index] / weights[index]
        if level <= most:
            break
        level, before = most, before + room[index]
    return [min(float(most), max(level, 0.0) * weight) for most, weight in zip(room, weights, strict=True)]


def _whole(total: int, quota: Sequence[float], capacity: Sequence[int]) -> list[int]:
    """As `_largest_remainder`."""
    near = 1e-9 * max(total, 1)
    quota = [float(round(each)) if abs(each - round(each)) < near else each for each in quota]
    base = [min(math.floor(each), room) for each, room in zip(quota, capacity, strict=True)]
    fraction = [
        float(round((each - own) * 2**32)) if own < room else -1.0
        for each, own, room in zip(quota, base, capacity, strict=True)
    ]
    for index in sorted(range(len(base)), key=lambda i: -fraction[i])[: total - sum(base)]:
        base[index] += 1
    return base


def of_full_image(total: int, alpha: float, capacity: tuple[int, ...]) -> int:
    """Tokens that the full image keeps; arguments as in `share_out`."""
    full = min(floor_share(alpha, total), capacity[0])
    return min(max(full, total - sum(capacity[1:])), capacity[0])


def share_out(total: int, alpha: float, capacity: tuple[int, ...], scores: Tensor | None) -> Tensor:
    """Tokens every partition keeps.

    The full image takes floor(alpha * total), at most its tokens; the sub-images divide the rest by `scores`;
    what one side cannot use goes to the other.

    Args:
        total: tokens to keep, at most `sum(capacity)`.
        alpha: the full image's share, 0..1.
        capacity: patch tokens of each partition, the full image first.
        scores: (P - 1,) float64 content of the sub-images; None when there are none.

    Returns:
        (P,) int64 on the device of `scores` (CPU when None), with sum `total`.
    """
    full = of_full_image(total, alpha, capacity)
    if scores is None:
        return torch.tensor([full])
    if scores.device.type == "cpu":
        return torch.tensor([full, *divided(total - full, scores.tolist(), capacity[1:])])
    caps = moved_to(scores.device, torch.tensor(capacity[1:]))
    return torch.cat((caps.new_full((1,), full), divide(total - full, scores, caps)))
