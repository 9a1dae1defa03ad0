"""What becomes of dropped tokens where kept ones take them up: (K, T) weights, the kept tokens' features being sums."""

import torch
from torch import Tensor

from hired.core.similarity import unit

NEAREST = 32
"""Tokens that each kept token of PruMerge takes up."""


def into_nearest(keys: Tensor, kept: Tensor, anchors: Tensor, free: Tensor) -> Tensor:
    """Every free token into the anchor with the likest key; an anchor becomes itself plus the mean of its tokens.

    (VisionZip, `CLIPVisionTower_VisionZip.forward`: a sum of two, not a mean of all.)

    Args:
        keys: (T, d).
        kept: (K,) int64 sorted indices of the kept tokens.
        anchors: (T,) bool, which of them take up others; at least one.
        free: (T,) bool, tokens to be taken up.

    Returns:
        (K, T) float32.
    """
    near = unit(keys)
    likeness = (near[kept] @ near.T).masked_fill(~anchors[kept][:, None], -torch.inf)
    goes = torch.zeros_like(likeness).scatter_(0, likeness.argmax(0, keepdim=True), 1.0) * free
    weights = goes / goes.sum(1, keepdim=True).clamp(min=1.0)
    return weights.scatter_add_(1, kept[:, None], torch.ones_like(weights[:, :1]))


def with_neighbours(scores: Tensor, keys: Tensor, kept: Tensor, pool: Tensor) -> Tensor:
    """Every kept token takes up the `NEAREST` tokens with the likest keys, each times its own attention.

    (LLaVA-PruMerge, `token_prune_merge_advanced`: not normalised, kept tokens among those taken up.)

    Args:
        scores: (T,) attention of the tokens, float32.
        keys: (T, d).
        kept: (K,) int64 indices.
        pool: (T,) bool, tokens that may be taken up.

    Returns:
        (K, T) float32.
    """
    near = unit(keys)
    likeness = (near[kept] @ near.T).masked_fill(~pool, -torch.inf)
    likeness.scatter_(1, kept[:, None], -torch.inf)
    likest = likeness.topk(min(NEAREST, likeness.shape[1]), dim=1)
    taken = torch.where(likest.values > -torch.inf, scores[likest.indices], 0.0)
    weights = torch.zeros_like(likeness).scatter_(1, likest.indices, taken)
    return weights.scatter_(1, kept[:, None], 1.0)
