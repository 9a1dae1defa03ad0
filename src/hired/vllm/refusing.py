"""What is registered on a vLLM that the plugin was not tested with: vLLM's own classes, which refuse `hired`."""

from importlib import import_module
from typing import Any

from hired.vllm.versions import check

STOCK = {
    "HiredLlavaNext": ("llava_next", "LlavaNextForConditionalGeneration"),
    "HiredLlava": ("llava", "LlavaForConditionalGeneration"),
    "HiredLlavaOnevision": ("llava_onevision", "LlavaOnevisionForConditionalGeneration"),
    "HiredInternVL": ("interns1", "InternS1ForConditionalGeneration"),
    "HiredQwen2VL": ("qwen2_vl", "Qwen2VLForConditionalGeneration"),
    "HiredQwen25VL": ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration"),
    "HiredQwen3VL": ("qwen3_vl", "Qwen3VLForConditionalGeneration"),
}
"""vLLM's module and class for each of ours. Imported when asked for: another vLLM may lack some."""


class _Refusing:
    """Put before a class of vLLM's."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        if getattr(vllm_config.model_config.hf_config, "hired", None) is not None:
            check()
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]


def __getattr__(name: str) -> Any:
    """vLLM's own class behind one of ours, never pruned; made once."""
    if name not in STOCK:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, stock = STOCK[name]
    base = getattr(import_module(f"vllm.model_executor.models.{module}"), stock)
    globals()[name] = made = type(name, (_Refusing, base), {"__module__": __name__, "__doc__": f"`{stock}`."})
    return made
