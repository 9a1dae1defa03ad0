"""The small trained LLaVA-NeXT that ships with the package.

An ordinary `LlavaNextForConditionalGeneration` and its processor, read from this folder; nothing is
downloaded. It reads labelled values off pictures such as `hired.forms.page` draws.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hired.errors import ModelLoadError

if TYPE_CHECKING:
    import torch
    from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

__all__ = ["WEIGHTS", "load_tiny"]

WEIGHTS = Path(__file__).resolve().parent / "weights"
"""The folder `save_pretrained` wrote; `from_pretrained` and serving engines take it as a model."""

_DTYPES = ("float32", "bfloat16", "float16", "float64")


def load_tiny(
    dtype: torch.dtype | str = "float32", device: torch.device | str = "cpu"
) -> tuple[LlavaNextForConditionalGeneration, LlavaNextProcessor]:
    """Load the shipped model and its processor.

    Args:
        dtype: float32, bfloat16, float16 or float64, as a torch dtype or its name; "auto" is what the weights are
            stored in, bfloat16.
        device: Where to put the model.

    Returns:
        The model, in evaluation mode, and the processor.

    Raises:
        ModelLoadError: Another dtype, or a device that cannot be used.
    """
    kind = _dtype(dtype)
    place = _device(device)
    from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

    model = LlavaNextForConditionalGeneration.from_pretrained(WEIGHTS, dtype=kind, local_files_only=True)
    processor = LlavaNextProcessor.from_pretrained(WEIGHTS, local_files_only=True)
    return model.to(place).eval(), processor


def _dtype(dtype: torch.dtype | str) -> torch.dtype | str:
    """The dtype of a name."""
    import torch

    known = {name: getattr(torch, name) for name in _DTYPES}
    for name, value in known.items():
        if dtype is value or (isinstance(dtype, str) and dtype.removeprefix("torch.") == name):
            return value  # type: ignore[no-any-return]
    if isinstance(dtype, str) and dtype == "auto":
        return dtype
    raise ModelLoadError(f"dtype={dtype!r}: use one of {', '.join(_DTYPES)}, or 'auto'")


def _device(device: torch.device | str) -> torch.device:
    """The device, tried out."""
    import torch

    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except Exception as error:  # RuntimeError, AssertionError, TypeError: it depends on the build
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelLoadError(f"device={device!r} cannot be used: {said:.200}") from error
    return place
