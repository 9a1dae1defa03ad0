"""Intervals of what was measured on a sample: 95 %, in the scale of the values."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

__all__ = ["bootstrap", "wilson"]

_DRAWS = 2000


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (E. B. Wilson, JASA 1927)."""
    z = 1.959964
    share = correct / n
    middle, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)


def bootstrap(values: Sequence[float], groups: Sequence[Hashable], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean by the percentile bootstrap (B. Efron, Annals of Statistics 1979), over groups.

    Whole groups are drawn, as values of one group (questions about one picture) are not independent.

    Args:
        values: one or more numbers.
        groups: the group of each.
        seed: of the draws; the same values always have the same interval.
    """
    names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for value, group in zip(values, groups, strict=True):
        sums[names[group]] += value
        counts[names[group]] += 1
    drawn = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), size=_DRAWS)
    low, high = np.percentile((drawn @ sums) / (drawn @ counts), (2.5, 97.5))
    return float(low), float(high)
