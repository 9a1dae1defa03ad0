"""How checkpoints call the weights of their language model."""

from __future__ import annotations

import re

__all__ = ["EMBEDDINGS", "language_name"]

EMBEDDINGS = "model.embed_tokens.weight"
"""What a language model of transformers' calls the embeddings of its vocabulary."""

_INSIDE = re.compile(r"^(?:model\.)?(?:language_model|text_model)\.(?:model\.)?(?P<rest>.+)$")
_ALONE = re.compile(r"^(?:model\.(?:layers|embed_tokens|norm|embedding_norm)|lm_head)\..+$")


def language_name(name: str) -> str | None:
    """What a causal language model of transformers' calls a weight, None for one of encoder or projector.

    Args:
        name: in a model, or in a checkpoint of whatever version of transformers.
    """
    inside = _INSIDE.match(name)
    if inside is not None:
        rest = inside["rest"]
        return rest if rest.startswith("lm_head.") else f"model.{rest}"
    return name if _ALONE.match(name) else None
