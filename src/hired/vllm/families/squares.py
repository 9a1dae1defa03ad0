"""What families share whose encoder takes a batch of squares: models of vLLM's LLaVA kind."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from hired.core.layout import Layout
from hired.vllm.models import Pruned


class Squares(Pruned):
    """A model with a CLIP or SigLIP tower. Put before a model class of vLLM's."""

    vision_tower: Any
    multi_modal_projector: Any

    def encoder_layers(self) -> Sequence[nn.Module]:
        """Those of the tower."""
        layers: Sequence[nn.Module] = self.vision_tower.vision_model.encoder.layers
        return layers

    def by_picture(self, pixels: Any, layouts: Sequence[Layout]) -> list[Tensor]:
        """Each picture's own partitions, without the padding that evens out a batch."""
        each = zip(pixels, layouts, strict=True)
        return [image.view(-1, *image.shape[-3:])[: layout.partitions] for image, layout in each]

    def encode(self, pixels: Tensor, layouts: Sequence[Layout]) -> Tensor:
        """(partitions, N, d): what the tower gives, without CLS."""
        found: Tensor = self._image_pixels_to_features(self.vision_tower, pixels)  # type: ignore[attr-defined]
        return found

    def project(self, patches: Tensor) -> Tensor:
        """With the model's projector."""
        projected: Tensor = self.multi_modal_projector(patches)
        return projected

    def newline(self) -> Tensor | None:
        """The model's, where it has one."""
        return getattr(self, "image_newline", None)
