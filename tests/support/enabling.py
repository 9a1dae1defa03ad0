"""What the tests of `hired.enable` share."""

from typing import Any

import torch

import hired
from tests.support import models

SETTINGS: dict[str, Any] = {"do_sample": False, "max_new_tokens": 6, "eos_token_id": None, "pad_token_id": 0}


def fresh(name: str) -> Any:
    """A model of the test's own."""
    return models.ALL[name].model()


def expected(name: str, inputs: Any, budget: float = 0.25, **settings: Any) -> torch.Tensor:
    """New tokens of `hired.reduce` and the untouched `generate`."""
    model = models.shared(name)
    reduced = hired.reduce(model, inputs, budget)
    return model.generate(**reduced, **{**SETTINGS, **settings})[:, reduced["input_ids"].shape[1] :]


def watch(model: Any) -> list[Any]:
    """Prompt lengths of the LLM's first runs, and "tower" for every run of the encoder."""
    seen: list[Any] = []
    model.model.vision_tower.register_forward_pre_hook(lambda *_: seen.append("tower"))

    def llm(_: Any, __: Any, given: dict[str, Any]) -> None:
        seen.append(given["inputs_embeds"].shape[1])

    model.model.language_model.register_forward_pre_hook(llm, with_kwargs=True)
    return seen
