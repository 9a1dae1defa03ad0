"""Choosing tokens one by one, each for what it adds to those chosen before. One loop over kept tokens, in float32."""

import torch
from torch import Tensor

_TINY = 1e-9
"""What is left of a token's own weight once others explain all of it: then the heavier token goes first."""


def by_coverage(weight: Tensor, similarity: Tensor, count: int) -> Tensor:
    """Tokens whose neighbourhoods are not covered yet, weighted: argmax of weight_i * sum_j max(0, S_ij - cover_j).

    `cover` starts at 0 and is the similarity of each token to its nearest chosen one (SCOPE, `SCOPE()`).

    Args:
        weight: (N,) non-negative; ties go to the lower index, here and below.
        similarity: (N, N) symmetric.
        count: tokens to choose, at most N.

    Returns:
        (count,) int64 indices in the order they were chosen. N^2 operations a token; on a CPU only of those whose cover
        has changed.
    """
    cover = torch.zeros_like(weight, dtype=torch.float32)
    gain = similarity.clamp(min=0).sum(1, dtype=torch.float64)
    weight = weight.to(torch.float64)
    free = torch.zeros_like(weight)
    chosen = []
    for _ in range(count):
        best = (weight * gain + free).argmax()
        chosen.append(best)
        free.index_fill_(0, best[None], -torch.inf)
        row = similarity.index_select(0, best[None])[0]
        if row.is_cpu:
            rose = (row > cover).nonzero()[:, 0]
            part, low, high = similarity[rose], cover[rose, None], row[rose, None]
            gain -= (part.clamp(min=low) - part.clamp(min=high) + (high - low)).sum(0, dtype=torch.float64)
            cover[rose] = row[rose]
        else:
            cover = torch.maximum(cover, row)
            gain = (similarity - cover).clamp(min=0).sum(1, dtype=torch.float64)
        gain.clamp_(min=0)
    return torch.stack(chosen)


def by_distance(distance: Tensor, count: int) -> Tensor:
    """The token farthest from its nearest neighbour, then always the one farthest from all chosen (DivPrune).

    Args:
        distance: (N, N) symmetric.
        count: tokens to choose, at most N.

    Returns:
        (count,) int64 indices in the order they were chosen. N operations a token.
    """
    size = len(distance)
    nearest = distance.kthvalue(2, dim=0).values if size > 1 else distance[0]
    taken = torch.zeros(size, device=distance.device)
    chosen = []
    for step in range(count):
        best = (nearest + taken).argmax()
        chosen.append(best)
        taken.index_fill_(0, best[None], -torch.inf)
        row = distance.index_select(0, best[None])[0]
        nearest = row if step == 0 else torch.minimum(nearest, row)
    return torch.stack(chosen)


def by_determinant(kernel: Tensor, count: int) -> Tensor:
    """Greedy search for the likeliest subset of a determinantal point process (Chen et al., arXiv 1709.05135).

    Args:
        kernel: (N, N) positive semi-definite.
        count: tokens to choose, at most N. Where the kernel's rank is smaller, the rest go by their own weight.

    Returns:
        (count,) int64 indices in the order they were chosen. N operations a token and one chosen before it.
    """
    own = kernel.diagonal()
    least = own.clamp(min=0) * _TINY + torch.finfo(kernel.dtype).tiny
    left, taken = own.clone(), torch.zeros_like(own)
    factors = kernel.new_zeros(count, len(kernel))
    chosen = []
    for step in range(count):
        best = (torch.maximum(left, least) + taken).argmax()[None]
        chosen.append(best[0])
        taken.index_fill_(0, best, -torch.inf)
        before = factors[:step]
        row = kernel.index_select(0, best)[0] - before.index_select(1, best)[:, 0] @ before
        # A token that others explain wholly tells nothing of the rest.
        told = left.index_select(0, best)
        row = torch.where(told > least.index_select(0, best), row / told.clamp(min=1e-30).sqrt(), 0.0)
        factors[step] = row
        left = left - row.square()
    return torch.stack(chosen)
