"""ViP-LLaVA: one partition, CLIP tower with CLS, several layers' features side by side, a layer norm and an MLP.

The CLS row of the last of the layers whose output is used tells importance. The others are nearer to the pixels and
are there for what it has lost, not for what matters.
"""

from typing import Any, ClassVar

from torch import Tensor

from hired.families.base import Encoder, tensor_rows
from hired.families.llava import Llava
from hired.families.squares import tower_parts


class VipLlava(Llava):
    """Facts: `transformers.models.vipllava`; LLaVA's processor. The model always drops the first token, the CLS."""

    name: ClassVar[str] = "ViP-LLaVA"
    model_types: ClassVar[tuple[str, ...]] = ("vipllava",)
    classes: ClassVar[str] = "VipLlavaForConditionalGeneration"
    encoder: ClassVar[str] = "CLIP, CLS token; five layers' features side by side"
    strategy: ClassVar[str | None] = "default"

    def parts(self, model: Any) -> Encoder:
        """The CLIP tower's parts; older transformers name `vision_feature_layer` in the plural."""
        config = model.config
        used = getattr(config, "vision_feature_layer", None)
        return tower_parts(model, used=config.vision_feature_layers if used is None else used, strategy=self.strategy)

    def container(self, features: list[Tensor]) -> Any:
        """One tensor of single rows."""
        return tensor_rows(features)
