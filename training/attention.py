"""Plain attention for training on CPU, where the backward pass of the fused kernel is slow.

Mathematically what sdpa computes; registered under a name of its own and never saved with the model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

PLAIN = "training_plain"


def plain(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, None]:
    """softmax(q k^T * scaling + mask) v; q, k, v: (batch, heads, tokens, head size)."""
    scores = torch.matmul(query * (scaling or query.shape[-1] ** -0.5), key.transpose(-1, -2))
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, -1).to(value.dtype)
    weights = nn.functional.dropout(weights, dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(PLAIN, plain)
