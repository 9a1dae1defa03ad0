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


def load_tiny(
    dtype: torch.dtype | str = "float32", device: torch.device | str = "cpu"
) -> tuple[LlavaNextForConditionalGeneration, LlavaNextProcessor]:
    """Load the shipped model and its processor.

    Args:
        dtype: A torch dtype or its name. The weights are stored in bfloat16.
        device: Where to put the model.

    Returns:
        The model, in evaluation mode, and the processor.

    Raises:
        ModelLoadError: A dtype or device that cannot be used, or files that are not as they were shipped.
    """
    import torch
    from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

    from hired.pretrained import check_complete, strangers, usable_device

    kind = getattr(torch, dtype, None) if isinstance(dtype, str) and dtype != "auto" else dtype
    if kind != "auto" and not (isinstance(kind, torch.dtype) and kind.is_floating_point):
        raise ModelLoadError(f"unknown dtype {dtype!r}: use float32, bfloat16, float16 or another that holds weights")
    target = usable_device(device)
    with strangers("tiny", "load the model"):
        model, info = LlavaNextForConditionalGeneration.from_pretrained(
            WEIGHTS, dtype=kind, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
        processor = LlavaNextProcessor.from_pretrained(WEIGHTS, local_files_only=True, trust_remote_code=False)
    check_complete(info, "tiny")
    return model.to(target).eval(), processor
