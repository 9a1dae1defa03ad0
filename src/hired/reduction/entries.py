"""What the entries of a model's inputs that have one value a token mean, in one table.

Entries are found by their shape; those that are not in the table are cut like `token_type_ids`.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

IGNORED_LABEL = -100

LABELS = ("labels", "shift_labels")
"""Entries of what is to be predicted: of the token itself, and of the token after it."""

KNOWN = (*LABELS, "token_type_ids", "mm_token_type_ids")
"""Entries that must have one value a token."""

FILLERS = {"labels": IGNORED_LABEL, "shift_labels": IGNORED_LABEL}
"""What stands in a padded place, where that is not 0; `input_ids` have the id that the inputs are padded with."""

APART = ("position_ids", "attention_mask", "negative_prompt_ids", "negative_prompt_attention_mask")
"""Entries that are cut in a way of their own, or that belong to another prompt."""


def per_token(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The entries of the shape of `input_ids`, but those `APART`."""
    shape = inputs["input_ids"].shape
    return {
        name: value
        for name, value in inputs.items()
        if isinstance(value, Tensor) and value.shape == shape and name not in APART
    }
