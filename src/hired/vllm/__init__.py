"""The vLLM plugin: served models keep a fixed share of their visual tokens.

vLLM calls `register` in each of its processes, through the entry point group `vllm.general_plugins`. A model is pruned
when its configuration has an entry `hired`, as `--hf-overrides '{"hired": {"budget": 0.2}}'` gives it; without one,
vLLM's own classes do all the work. Importing this package imports neither vLLM nor torch.
"""

from hired.vllm.versions import TESTED, in_range

__all__ = ["ARCHITECTURES", "PREFIX", "TESTED", "register"]

ARCHITECTURES: dict[str, str] = {
    "LlavaNextForConditionalGeneration": "hired.vllm.families.llava_next:HiredLlavaNext",
    "LlavaForConditionalGeneration": "hired.vllm.families.llava:HiredLlava",
    "LlavaOnevisionForConditionalGeneration": "hired.vllm.families.llava_onevision:HiredLlavaOnevision",
    "InternVLForConditionalGeneration": "hired.vllm.families.internvl:HiredInternVL",
    "Qwen2VLForConditionalGeneration": "hired.vllm.families.qwen2_vl:HiredQwen2VL",
    "Qwen2_5_VLForConditionalGeneration": "hired.vllm.families.qwen2_5_vl:HiredQwen25VL",
    "Qwen3VLForConditionalGeneration": "hired.vllm.families.qwen3_vl:HiredQwen3VL",
}
"""Architectures that can be pruned, as `config.json` names them, and our class for each."""

PREFIX = "Hired"
"""Before an architecture: a name that only processes with this plugin know. A model that `hf_overrides` gives it, as
`{"architectures": ["HiredLlavaNextForConditionalGeneration"]}`, fails to load in a process without the plugin, where it
would otherwise run unpruned."""


def register() -> None:
    """Puts our classes in the place of vLLM's own in its model registry; any number of times.

    Nothing is imported for it but vLLM's registry, which is there already. Outside the tested range of vLLM the classes
    refuse a configuration with `hired`, and do nothing else.
    """
    from vllm.model_executor.models import ModelRegistry

    for architecture, ours in ARCHITECTURES.items():
        target = ours if in_range() else f"hired.vllm.refusing:{ours.partition(':')[2]}"
        ModelRegistry.register_model(architecture, target)
        ModelRegistry.register_model(PREFIX + architecture, target)
