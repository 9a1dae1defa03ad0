"""The small trained LLaVA-NeXT that ships with the package.

An ordinary `LlavaNextForConditionalGeneration` and its processor, read from this folder; nothing is
downloaded. It answers questions about pictures such as `hired.forms.page` draws.
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
        ModelLoadError: Another dtype, a device that cannot be used, or files that are not as they were shipped.
    """
    kind = _dtype(dtype)
    from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

    from hired.loading.checkpoints import check_complete
    from hired.loading.devices import usable_device
    from hired.loading.strangers import strangers

    place = usable_device(device)
    with strangers("tiny", "load the model"):
        model, info = LlavaNextForConditionalGeneration.from_pretrained(
            WEIGHTS, dtype=kind, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
        processor = LlavaNextProcessor.from_pretrained(WEIGHTS, local_files_only=True, trust_remote_code=False)
    check_complete(info, "tiny")
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
