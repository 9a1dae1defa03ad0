"""Tensors between host and device, in as few transfers as can be: each one has a fixed price."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["moved_to", "on_host"]


def moved_to(device: torch.device, *tensors: Tensor) -> list[Tensor]:
    """Tensors of one dtype on `device`, in one transfer; where that is a CUDA device the host does not wait for it."""
    if not tensors or tensors[0].device == device:
        return list(tensors)
    joined = torch.cat([tensor.flatten() for tensor in tensors])
    # From pageable memory CUDA copies before it returns, so that nothing can change what is on its way.
    return _split(joined.to(device, non_blocking=device.type == "cuda"), tensors)


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one dtype and device on the CPU, in one transfer, which waits for the device."""
    if not tensors or tensors[0].device.type == "cpu":
        return list(tensors)
    return _split(torch.cat([tensor.flatten() for tensor in tensors]).cpu(), tensors)


def _split(joined: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(joined, [tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]
