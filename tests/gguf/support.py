"""Tiny random models such as llama.cpp can compute to the last digits: where it fixes a number, they have that one."""

import copy
from functools import cache
from typing import Any

from transformers import Qwen3VLForConditionalGeneration

from tests.support import models
from tests.support.cases.qwen import made

REFUSED = ("llama4", "lfm2_vl")
"""Families whose language model llama.cpp does not run, or not as transformers does."""

RUN = tuple(name for name in models.ALL if name not in REFUSED)
"""The others."""


@cache
def model(name: str) -> Any:
    """The tiny model of a family."""
    found = models.shared(name)
    if name == "qwen3_vl":  # llama.cpp wants more layers than DeepStack adds features to
        config = copy.deepcopy(found.config)
        config.text_config.num_hidden_layers = 3
        config.text_config.rope_parameters["mrope_section"] = [6, 5, 5]  # in turn up to the last pair
        return made(Qwen3VLForConditionalGeneration, config)
    if name in ("qwen2_vl", "qwen2_5_vl"):  # llama.cpp does not read this architecture's epsilon
        found = copy.deepcopy(found)
        found.config.text_config.rms_norm_eps = 0.0
        for part in found.model.language_model.modules():
            if hasattr(part, "variance_epsilon"):
                part.variance_epsilon = 0.0
    if name in ("aya_vision", "cohere2_vision"):  # llama.cpp has no LM head of its own there
        found = copy.deepcopy(found)
        found.config.tie_word_embeddings = found.config.text_config.tie_word_embeddings = True
        found.tie_weights()
    return found
