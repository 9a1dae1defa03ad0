"""The small trained LLaVA-NeXT that ships with the package.

An ordinary `LlavaNextForConditionalGeneration` and its processor, read from this folder; nothing is
downloaded. It reads labelled values off pictures such as `hired.forms.page` draws.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
    """
    from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

    model = LlavaNextForConditionalGeneration.from_pretrained(WEIGHTS, dtype=dtype, local_files_only=True)
    processor = LlavaNextProcessor.from_pretrained(WEIGHTS, local_files_only=True)
    return model.to(device).eval(), processor
