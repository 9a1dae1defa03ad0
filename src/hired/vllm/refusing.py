"""What is registered on a vLLM that the plugin was not tested with: vLLM's own classes, which refuse `hired`."""

from typing import Any

from vllm.model_executor.models.llava import LlavaForConditionalGeneration
from vllm.model_executor.models.llava_next import LlavaNextForConditionalGeneration
from vllm.model_executor.models.llava_onevision import LlavaOnevisionForConditionalGeneration

from hired.vllm.versions import check


class _Refusing:
    """Put before a class of vLLM's."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        if getattr(vllm_config.model_config.hf_config, "hired", None) is not None:
            check()
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]


class HiredLlavaNext(_Refusing, LlavaNextForConditionalGeneration):  # type: ignore[misc]
    """`LlavaNextForConditionalGeneration`, never pruned."""


class HiredLlava(_Refusing, LlavaForConditionalGeneration):  # type: ignore[misc]
    """`LlavaForConditionalGeneration`, never pruned."""


class HiredLlavaOnevision(_Refusing, LlavaOnevisionForConditionalGeneration):  # type: ignore[misc]
    """`LlavaOnevisionForConditionalGeneration`, never pruned."""
