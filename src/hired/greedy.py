"""Greedy answers, one a prompt, whatever the `generation_config.json` of a checkpoint asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

__all__ = ["KEPT", "greedy"]

KEPT = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
)
"""Settings of a checkpoint's that hold all the same: its special tokens, and which tokens it wants less of."""


@contextlib.contextmanager
def greedy(model: Any) -> Iterator[None]:
    """While the block runs, the model's own settings of `generate` are `KEPT` and nothing else.

    Sampling, beams, several or scored answers, assisted or constrained decoding, lengths and kinds of cache would
    change what is measured or the form of what `generate` returns. Arguments of `generate` alone do not undo them:
    what they leave out is taken from the model.

    Args:
        model: its `generation_config` is another while the block runs.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    kept = {key: getattr(own, key, None) for key in KEPT}
    model.generation_config = GenerationConfig(
        do_sample=False, num_beams=1, **{key: value for key, value in kept.items() if value is not None}
    )
    try:
        yield
    finally:
        model.generation_config = own
