"""Models of exact architectures with random weights: what they cost is what the checkpoints cost."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hired.costs.shapes import meta_model

__all__ = ["fill", "random_model"]

STANDARD_DEVIATION = 0.02
POOL = 1_000_003
"""Random numbers drawn; weights repeat them. A prime, so that no two rows of a matrix are alike."""


def random_model(config: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A model of exactly this architecture with random weights, made in `dtype` with no second copy of them.

    Args:
        config: of the whole model; its dtype is set.
        device: where the weights go.
        dtype: of the weights.
    """
    config.dtype = dtype
    model = meta_model(config)
    model.to_empty(device=device)
    model.tie_weights()
    fill(model)
    return model.eval()


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Gives parameters small random values (norms: 1 and 0, biases: 0), and buffers what their module computes.

    Values stay finite in half precision through all layers of the shapes.
    """
    generator = torch.Generator().manual_seed(0)
    pool = torch.empty(POOL).normal_(0, STANDARD_DEVIATION, generator=generator)
    for module in model.modules():
        norm = "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias" or norm:
                parameter.fill_(1.0 if norm and name != "bias" else 0.0)
                continue
            drawn = pool.to(parameter)
            flat = parameter.view(-1)
            for start in range(0, flat.numel(), POOL):
                part = flat[start : start + POOL]
                part.copy_(drawn[: part.numel()])
        buffers = dict(module.named_buffers(recurse=False))
        if buffers:  # such as rotary frequencies: computed on construction, from the module's configuration
            fresh = type(module)(module.config)
            for name, buffer in buffers.items():
                buffer.copy_(fresh.get_buffer(name))
