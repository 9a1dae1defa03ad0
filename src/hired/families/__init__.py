"""The families, one registry line each."""

from typing import Any

from hired.errors import UnsupportedModelError
from hired.families.aya_vision import AyaVision
from hired.families.base import Encoder, Family
from hired.families.cohere2_vision import Cohere2Vision
from hired.families.gemma3 import Gemma3
from hired.families.idefics3 import Idefics3, SmolVLM
from hired.families.internvl import InternVL
from hired.families.lfm2_vl import Lfm2Vl
from hired.families.llama4 import Llama4
from hired.families.llava import Llava
from hired.families.llava_next import LlavaNext
from hired.families.llava_next_video import LlavaNextVideo
from hired.families.llava_onevision import LlavaOnevision
from hired.families.mistral3 import Mistral3
from hired.families.qwen2_vl import Qwen2VL, Qwen25VL
from hired.families.qwen3_vl import Qwen3VL
from hired.families.vipllava import VipLlava

__all__ = ["FAMILIES", "Encoder", "Family", "family_for", "family_of", "supported"]

FAMILIES: tuple[Family, ...] = (
    LlavaNext(),
    Llava(),
    LlavaOnevision(),
    InternVL(),
    AyaVision(),
    Cohere2Vision(),
    Qwen2VL(),
    Qwen25VL(),
    Qwen3VL(),
    Idefics3(),
    SmolVLM(),
    Gemma3(),
    Mistral3(),
    Llama4(),
    Lfm2Vl(),
    VipLlava(),
    LlavaNextVideo(),
)


def supported() -> tuple[Family, ...]:
    """Every family HiRED knows, for `hired models`."""
    return FAMILIES


def family_for(model_type: str | None, name: str = "a model") -> Family:
    """The family of a `config.model_type`; `name` is what an error calls the model.

    Raises:
        UnsupportedModelError: a type of no known family.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    raise _unsupported(name, model_type)


def family_of(model: Any) -> Family:
    """The family of a model.

    Raises:
        UnsupportedModelError: a model of no known family.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if not hasattr(model, "get_image_features"):  # such as the LLM alone
        raise _unsupported(type(model).__name__, kind)
    return family_for(kind, type(model).__name__)


def _unsupported(name: str, model_type: str | None) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{name} (model_type {model_type!r}) is not supported: `hired models` lists the {len(FAMILIES)} known families"
    )
