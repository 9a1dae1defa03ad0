"""The families, one registry line each."""

from typing import Any

from hired.errors import UnsupportedModelError
from hired.families.base import Encoder, Family
from hired.families.llava import Llava
from hired.families.llava_next import LlavaNext

__all__ = ["FAMILIES", "Encoder", "Family", "family_of", "supported"]

FAMILIES: tuple[Family, ...] = (
    LlavaNext(),
    Llava(),
)


def supported() -> tuple[Family, ...]:
    """Every family HiRED knows, for `hired models`."""
    return FAMILIES


def family_of(model: Any) -> Family:
    """The family of a model.

    Raises:
        UnsupportedModelError: a model of no known family.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    for family in FAMILIES:
        if kind in family.model_types and hasattr(model, "get_image_features"):
            return family
    known = "; ".join(family.classes for family in FAMILIES)
    raise UnsupportedModelError(f"{type(model).__name__} (model_type {kind!r}) is not supported. Known: {known}")
