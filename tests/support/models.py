"""Small models with random weights and real processors, built from configurations: no hub, no files.

A family has one `Case` in `tests/support/cases`; tests find the cases through `ALL`, in step with `hired.families`.
"""

from functools import cache
from typing import Any

import pytest
from transformers.utils import is_torchvision_available

from tests.support.cases import CASES as ALL
from tests.support.cases.llava_onevision import MOST_PARTITIONS, ONEVISION_PINPOINTS, ONEVISION_SIDE
from tests.support.tiny import IMAGE_ID, PATCH, PINPOINTS, SIDE, WORDS, siglip, text, tokenizer, vision

__all__ = [
    "ALL",
    "CASES",
    "IMAGE_ID",
    "LLAVAS",
    "MOST_PARTITIONS",
    "ONEVISION_PINPOINTS",
    "ONEVISION_SIDE",
    "PATCH",
    "PINPOINTS",
    "SIDE",
    "WORDS",
    "processor",
    "shared",
    "siglip",
    "text",
    "tokenizer",
    "vision",
]

CASES = {name: ALL[name] for name in ("llava_next", "llava")}
"""Families that compute only what is kept (`tokenwise`)."""

LLAVAS = (*CASES, "llava_onevision")
"""Families whose inputs carry what is needed of the pictures and whose placeholders stand side by side."""


@cache
def shared(name: str) -> Any:
    """The model of a case, shared by tests that leave it as it is."""
    return ALL[name].model()


@cache
def _processor(name: str, padding_side: str) -> Any:
    return ALL[name].processor(padding_side)


def processor(name: str, padding_side: str = "left") -> Any:
    """The processor of a case; skips the test where it cannot be loaded."""
    if ALL[name].torchvision and not is_torchvision_available():
        pytest.skip(f"the processor of {name} needs torchvision: run `make test-families`")
    return _processor(name, padding_side)
