"""The mask that `generate` infers where a caller gives none."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hired.reduction.rows import inferred_pad


def generates_mask(model: Any, call: Mapping[str, Any]) -> Tensor:
    """(batch, length) mask that transformers would infer from the call's own padding id.

    Args:
        model: the model.
        call: arguments of `generate`, without an `attention_mask`.
    """
    config = call.get("generation_config")

    def told(name: str) -> Any:
        for value in (call.get(name), getattr(config, name, None), getattr(model.generation_config, name, None)):
            if value is not None:
                return value
        return None

    ids: Tensor = call["input_ids"]
    pad = inferred_pad(told("pad_token_id"), told("eos_token_id"), ids)
    return torch.ones_like(ids) if pad is None else ids.ne(pad).long()
