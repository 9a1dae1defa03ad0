"""How alike tokens are."""

import torch
from torch import Tensor


def unit(vectors: Tensor) -> Tensor:
    """(N, d) rows of length 1, float32; a row of zeros stays as it is."""
    return torch.nn.functional.normalize(vectors.float(), dim=-1)


def cosine(vectors: Tensor) -> Tensor:
    """(N, N) float32 cosine similarities of (N, d) rows. N^2 d operations."""
    rows = unit(vectors)
    return rows @ rows.T
