"""What a token shows that no better-ranked one does, in one pass: no loop over kept tokens."""

import torch
from torch import Tensor

from hired.core.similarity import unit

_ROWS = 1024
"""Tokens compared at a time with all that rank higher: no work on the half that does not count, and bounded memory."""
_LEAST = 1e-3
"""Novelty of a token that others show wholly, so that among those the ranking goes on."""


def novelty(scores: Tensor, states: Tensor) -> Tensor:
    """1 - S^2 for each token, S being its cosine similarity to the likest token of higher rank, 0 if none is alike.

    That is the share of a token that its likest better-ranked one does not explain: the first step of a determinantal
    point process's greedy search, for all tokens at once. About N^2 d / 2 operations, in the dtype of `states`.

    Args:
        scores: (N,) what tokens are ranked by; ties go to the earlier token.
        states: (N, d).

    Returns:
        (N,) float32, above 0 and at most 1; 1 for the best-ranked token.
    """
    order = scores.argsort(descending=True, stable=True)
    ranked = unit(states[order]).to(states.dtype)
    size = len(ranked)
    alike = []
    for start in range(0, size, _ROWS):
        end = min(start + _ROWS, size)
        block = ranked[start:end] @ ranked[:end].T
        block[:, start:].tril_(-1)  # of higher rank are the columns in front of the row's own
        alike.append(block.amax(1).float().clamp_(0.0, 1.0))
    found = torch.cat(alike)
    return torch.empty_like(found).scatter_(0, order, (1 - found.square()).clamp_(min=_LEAST))
