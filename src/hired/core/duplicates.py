"""Leaving out tokens that look like others."""

import torch
from torch import Tensor

ROUND = 8
"""Tokens that go at once."""


def without_duplicates(similarity: Tensor, order: Tensor, count: int) -> Tensor:
    """Of tokens in an order, `count` that are unlike each other (VisPruner, `encode_images`).

    Again and again, the tokens at even places are compared with those at odd places, and the (at most `ROUND`) even
    ones that are most like an odd one go; the even ones that are left, the likest first, then stand before the odd.

    Args:
        similarity: (N, N).
        order: (M,) int64, some of the N tokens, the most important first.
        count: tokens to keep, at most M.

    Returns:
        (count,) int64. About M^3 / 32 operations.
    """
    left = order
    while len(left) > count:
        even, odd = left[0::2], left[1::2]
        gone = min(ROUND, len(left) - count, len(even))
        if len(odd) == 0:
            return left[:count]
        likeness = similarity[even][:, odd].amax(1)
        left = torch.cat((even[likeness.argsort(descending=True, stable=True)][gone:], odd))
    return left
