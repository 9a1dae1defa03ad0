"""The served models: vLLM's own classes with a budget."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.models.llava import (
    LlavaForConditionalGeneration,
    LlavaMultiModalProcessor,
    LlavaProcessingInfo,
)
from vllm.model_executor.models.llava_next import (
    LlavaNextForConditionalGeneration,
    LlavaNextMultiModalProcessor,
    LlavaNextProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from hired.errors import InputsError
from hired.vllm.encoding import PrunedEncoder
from hired.vllm.processing import FIELD, PrunedInfo, PrunedProcessor
from hired.vllm.starting import check_engine, started


class Pruned:
    """A model whose pictures keep a fixed share of their visual tokens. Put before a model class of vLLM's.

    Without settings it is that class and nothing else. The methods below fit models of vLLM's LLaVA kind.

    Attributes:
        pruned: our encoder, None without settings.
    """

    config: Any
    vision_tower: Any
    multi_modal_projector: Any
    pruned: PrunedEncoder | None

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        """Builds the model.

        Raises:
            StartError: settings out of range, or a set-up that goes around the budget.
            UnsupportedModelError: an encoder that HiRED cannot read.
        """
        settings = check_engine(vllm_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self.pruned = None if settings is None else PrunedEncoder(self, settings, vllm_config.scheduler_config)

    def embed_multimodal(self, **kwargs: object) -> Any:
        """Embeddings of the pictures of one step."""
        if self.pruned is None:
            return super().embed_multimodal(**kwargs)  # type: ignore[misc]
        described = kwargs.pop(FIELD, None)
        given = self._parse_and_validate_image_input(**kwargs)  # type: ignore[attr-defined]
        if given is None:
            return []
        pixels = given.get("pixel_values")
        if not isinstance(described, Tensor) or pixels is None:
            raise InputsError("pictures that did not go through HiRED's processor cannot be pruned: send the pictures")
        return self.pruned.embed(pixels, described)

    def encoder_layers(self) -> Sequence[nn.Module]:
        """The loaded layers of the encoder, in order; each with its attention at `self_attn`."""
        layers: Sequence[nn.Module] = self.vision_tower.vision_model.encoder.layers
        return layers

    def encode(self, pixels: Tensor) -> Tensor:
        """(partitions, N, d): what the encoder gives for partitions, without CLS."""
        found: Tensor = self._image_pixels_to_features(self.vision_tower, pixels)  # type: ignore[attr-defined]
        return found

    def project(self, patches: Tensor) -> Tensor:
        """(K, hidden): what the LLM sees of (K, d) encoder outputs."""
        projected: Tensor = self.multi_modal_projector(patches)
        return projected

    def pack(self, size: tuple[int, int], patches: Tensor) -> Tensor:
        """(T, hidden): the visual tokens of a picture of (width, height) pixels, from its projected partitions.

        Only for families whose tokens are each made of several patches.
        """
        raise NotImplementedError

    def newline(self) -> Tensor | None:
        """(hidden,): what the LLM sees of a row-end newline, None in a model without."""
        return getattr(self, "image_newline", None)

    def device(self) -> torch.device:
        """Where the encoder is."""
        device: torch.device = next(self.vision_tower.parameters()).device
        return device


def with_processor(stock: Any, info: Any, processor: Any) -> Any:
    """Decorator that gives a model class our processor where it has settings, and vLLM's own where not."""
    factories = stock._processor_factory

    def make_info(ctx: Any) -> Any:
        return factories.info(ctx) if started(ctx.model_config) is None else info(ctx)

    def make_processor(made: Any, dummies: Any) -> Any:
        return processor(made, dummies) if isinstance(made, PrunedInfo) else factories.processor(made, dummies)

    return MULTIMODAL_REGISTRY.register_processor(make_processor, info=make_info, dummy_inputs=factories.dummy_inputs)


class LlavaNextInfo(PrunedInfo, LlavaNextProcessingInfo):  # type: ignore[misc]
    """Of LLaVA-NeXT."""


class LlavaNextProcessor(PrunedProcessor, LlavaNextMultiModalProcessor):  # type: ignore[misc]
    """Of LLaVA-NeXT."""


@with_processor(LlavaNextForConditionalGeneration, LlavaNextInfo, LlavaNextProcessor)
class HiredLlavaNext(Pruned, LlavaNextForConditionalGeneration):  # type: ignore[misc]
    """LLaVA-NeXT: the full image and a grid of sub-images."""


class LlavaInfo(PrunedInfo, LlavaProcessingInfo):  # type: ignore[misc]
    """Of LLaVA-1.5."""


class LlavaProcessor(PrunedProcessor, LlavaMultiModalProcessor):  # type: ignore[misc]
    """Of LLaVA-1.5."""


@with_processor(LlavaForConditionalGeneration, LlavaInfo, LlavaProcessor)
class HiredLlava(Pruned, LlavaForConditionalGeneration):  # type: ignore[misc]
    """LLaVA-1.5: one partition. Its Pixtral kind is refused."""
