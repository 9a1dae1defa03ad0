"""Devices by name."""

from __future__ import annotations

from typing import Any

from hired.errors import ModelLoadError
from hired.loading.strangers import reason

__all__ = ["usable_device"]


def usable_device(name: Any) -> Any:
    """The device of a name, tried out; ``auto`` is a GPU where there is one.

    Raises:
        ModelLoadError: PyTorch knows no such device, or cannot use it here.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except Exception as error:  # RuntimeError, AssertionError, NotImplementedError: it depends on the build
        raise ModelLoadError(f"device {str(name)!r} cannot be used: {reason(error)}") from error
    return device
