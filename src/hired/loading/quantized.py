"""Weights in 4 or 8 bits while they are read, by bitsandbytes through transformers.

Only the LLM's linear layers are quantised. The vision encoder stays as it was trained, as its attention says which
tokens are kept, and so do projector, embeddings and LM head.
"""

from __future__ import annotations

import importlib.util
import re
from typing import Any

from hired.errors import MissingDependencyError, ModelLoadError
from hired.loading.strangers import quiet, reason, strangers

__all__ = ["LOADS", "check_load", "quantization", "usable_for"]

LOADS = ("4bit", "8bit")
"""NF4 with a float32 scale for 64 weights, and LLM.int8()."""


def check_load(load: str | None) -> None:
    """Refuses what is no name of `LOADS` or cannot be done here, before anything is read.

    Args:
        load: the name, or None for weights as they are.

    Raises:
        ModelLoadError: an unknown name.
        MissingDependencyError: bitsandbytes or accelerate is not installed.
    """
    if load is None:
        return
    if load not in LOADS:
        raise ModelLoadError(f"unknown load {load!r}: use one of {', '.join(LOADS)}, or leave it out")
    for name in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f"loading in {load} needs {name}: install hired-vlm with its quantized extra"
                " (in a checkout: pip install '.[quantized]')"
            )


def usable_for(load: str, device: Any) -> None:
    """Refuses a device that bitsandbytes does not know.

    Args:
        load: a name of `LOADS`.
        device: a `torch.device`.

    Raises:
        ModelLoadError: there is nothing for it, or bitsandbytes cannot be imported.
    """
    try:
        with quiet():
            import bitsandbytes
    except Exception as error:  # it opens libraries of its own, which may not fit the system's
        raise ModelLoadError(f"bitsandbytes cannot be used for loading in {load}: {reason(error)}") from error
    known = getattr(bitsandbytes, "supported_torch_devices", {"cuda"})
    if device.type not in known:
        raise ModelLoadError(
            f"the installed bitsandbytes does not load in {load} on {device.type}: use --device"
            f" {' or '.join(sorted(known))}, or load without it"
        )


def quantization(load: str, config: Any, name: str, dtype: str) -> Any:
    """What `from_pretrained` takes as `quantization_config`.

    Args:
        load: a name of `LOADS`.
        config: the checkpoint's configuration.
        name: what errors call it.
        dtype: what is computed in, ``auto`` for the checkpoint's own.

    Raises:
        ModelLoadError: the checkpoint is quantised already, or its modules cannot be told.
    """
    import torch
    from transformers import BitsAndBytesConfig

    from hired.costs.shapes import meta_model

    if getattr(config, "quantization_config", None) is not None:
        raise ModelLoadError(f"{name!r} is quantised already: load it as it is, without --load {load}")
    with strangers(name, "lay out the model"):
        kept = _outside(meta_model(config))
    if load == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    own = getattr(config, "dtype", None) if dtype == "auto" else dtype
    compute = getattr(torch, own) if isinstance(own, str) else own
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=compute or torch.float32,  # float32 lets bitsandbytes go by its input
        llm_int8_skip_modules=kept,
    )


def _outside(model: Any) -> list[str]:
    """Patterns for the names of linear layers outside the LLM's, as few as tell them apart."""
    from torch import nn

    llm = model.get_decoder()
    inside = {id(module) for module in llm.modules()}
    around = {name for name, module in model.named_modules() if any(part is llm for part in module.modules())}
    kept = []
    for name, module in model.named_modules():
        parent = name.rpartition(".")[0]
        linear = any(isinstance(part, nn.Linear) for part in module.modules())
        if id(module) not in inside and name not in around and parent in around and linear:
            kept.append(re.escape(name))
    return kept
