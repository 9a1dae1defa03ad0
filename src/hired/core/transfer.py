"""Tensors between host and device, in as few transfers as can be: each one has a fixed price."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["all_moved_to", "host_by_default", "moved_to", "on_host"]


def host_by_default() -> AbstractContextManager[Any]:
    """New tensors are made on the CPU, also where the caller has set another default device."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


def moved_to(device: torch.device, tensor: Tensor) -> Tensor:
    """The tensor on `device`; where that is a CUDA device the host does not wait for it."""
    # From pageable memory CUDA copies before it returns, so that nothing can change what is on its way.
    return tensor.to(device, non_blocking=device.type == "cuda")


def all_moved_to(device: torch.device, *tensors: Tensor) -> list[Tensor]:
    """The same for tensors of one dtype, in one transfer."""
    if tensors[0].device == device:
        return list(tensors)
    return _split(moved_to(device, _joined(tensors)), tensors)


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one dtype and device on the CPU, in one transfer, which waits for the device."""
    if tensors[0].device.type == "cpu":
        return list(tensors)
    return _split(_joined(tensors).cpu(), tensors)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _split(joined: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(joined, [tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]
