"""The geometry of a served model, under the limits of its checkpoint's image processor."""

from collections.abc import Mapping
from typing import Any

from hired.families import family_for
from hired.vllm.geometry import Geometry, geometry_of, limits_of


def served_geometry(model_config: Any, options: Mapping[str, Any] | None = None) -> Geometry:
    """The layouts of a served model's pictures.

    Args:
        model_config: vLLM's `ModelConfig`.
        options: a request's own `mm_processor_kwargs`, beside the server's.

    Raises:
        UnsupportedModelError: as `Geometry`.
    """
    config = model_config.hf_config
    family = family_for(config.model_type)
    if family.limited is None:
        return geometry_of(config)
    from vllm.transformers_utils.processor import cached_image_processor_from_config

    processor = cached_image_processor_from_config(model_config)
    own = getattr(model_config.multimodal_config, "mm_processor_kwargs", None) or {}
    return geometry_of(config, limits_of(family, processor, own, options or {}))
