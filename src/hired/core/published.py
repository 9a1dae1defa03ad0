"""The selection of the authors' code (commit 502d6dd), quirks included, for reproducing its tables.

Where it differs from the paper: the initial layer only marks the full image's top patches and counts the marks;
the flat list of patches is cut into equal runs, one a sub-image, whatever rectangle the sub-image covers; shares
are truncated, so that fewer than B tokens are kept; what a sub-image cannot hold is lost; padding is not spared.
"""

import torch
from torch import Tensor


def select(first: Tensor, last: Tensor, partitions: list[int], budget: float, alpha: float = 0.5) -> Tensor:
    """The tokens the authors' code keeps.

    Args:
        first: (partitions, heads, tokens) attention CLS -> patch of the initial layer, all images stacked.
        last: the same of the final layer.
        partitions: partitions of each image, the full image first; their sum is the first dimension.
        budget: share of partitions * tokens to keep.
        alpha: the full image's share of the budget.

    Returns:
        (partitions, tokens) bool, True where a token is kept.
    """
    keep = torch.zeros(last.shape[0], last.shape[2], dtype=torch.bool, device=last.device)
    start = 0
    for count in partitions:
        rows = slice(start, start + count)
        total = int(count * last.shape[2] * budget)
        keep[rows] = select_image(first[start], last[rows], total, alpha)
        start += count
    return keep


def select_image(first: Tensor, last: Tensor, total: int, alpha: float) -> Tensor:
    """`select` for one image and a budget in tokens; `first` is (heads, tokens) of the full image."""
    partitions, _, tokens = last.shape
    tiles = partitions - 1
    full = min(int(total * alpha), tokens) if tiles else min(total, tokens)
    shares = [full]
    left = min(total - full, tiles * tokens)
    if left > 0:
        marks = torch.zeros(tokens, dtype=torch.int64, device=first.device)
        marks[first.float().sum(0).topk(int(tokens * (1 - alpha))).indices] = 1
        run = tokens // tiles
        counts = marks[: run * tiles].view(tiles, run).sum(1)
        # In float32 as the authors compute it: the truncation depends on it.
        shares += (counts / counts.sum().clamp(min=1) * left).int().clamp(max=tokens).tolist()
    keep = torch.zeros(partitions, tokens, dtype=torch.bool, device=last.device)
    importance = last.float().sum(1)
    for row, scores, share in zip(keep, importance, shares, strict=False):
        row[scores.topk(share).indices] = True
    return keep
