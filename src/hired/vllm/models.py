"""What the served models share: vLLM's own classes with a budget."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from vllm.multimodal import MULTIMODAL_REGISTRY

from hired.core.layout import Layout
from hired.errors import InputsError
from hired.vllm.encoding import PrunedEncoder
from hired.vllm.processing import FIELD, PrunedInfo
from hired.vllm.starting import check_engine, started


class Pruned:
    """A model whose pictures keep a fixed share of their visual tokens. Put before a model class of vLLM's.

    Without settings it is that class and nothing else. A family says in the methods below how its encoder is called.

    Attributes:
        pruned: our encoder, None without settings.
        attends: name of the attention module in a layer of the encoder.
    """

    config: Any
    pruned: PrunedEncoder | None
    attends: ClassVar[str] = "self_attn"

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        """Builds the model.

        Raises:
            StartError: settings out of range, or a set-up that goes around the budget.
            UnsupportedModelError: an encoder that HiRED cannot read.
        """
        found = check_engine(vllm_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self.pruned = None if found is None else PrunedEncoder(self, *found, vllm_config.scheduler_config)

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
        """The loaded layers of the encoder, in order."""
        raise NotImplementedError

    def by_picture(self, pixels: Any, layouts: Sequence[Layout]) -> list[Tensor]:
        """What the encoder takes of each picture, to be put one behind the other; from the values as vLLM batches them.

        Of a family whose encoder takes a batch of partitions, (partitions, channels, height, width) each.
        """
        raise NotImplementedError

    def encode(self, pixels: Tensor, layouts: Sequence[Layout]) -> Tensor:
        """What the encoder gives for pictures; (partitions, N, d) without CLS where tokens are encoder outputs."""
        raise NotImplementedError

    def features(self, states: Tensor, layouts: Sequence[Layout]) -> list[Tensor]:
        """(T, width) of each picture, what the LLM gets of all its tokens; from what `encode` gave.

        Only for families whose tokens are each made of several encoder outputs.
        """
        raise NotImplementedError

    def project(self, patches: Tensor) -> Tensor:
        """(K, hidden): what the LLM sees of (K, d) encoder outputs. Only for families whose tokens are each one."""
        raise NotImplementedError

    def newline(self) -> Tensor | None:
        """(hidden,): what the LLM sees of a row-end newline, None in a model without."""
        return None

    def embedded(self, features: Tensor) -> Tensor:
        """(T, hidden): what stands in place of the LLM's embeddings, of (T, width) `features`."""
        return features

    def labelled(self, tokens: Tensor, layout: Layout, rows: Tensor | None) -> Tensor:
        """What is handed to vLLM of a picture's kept tokens.

        Args:
            tokens: (K, width), as `features`.
            layout: the picture.
            rows: (K,) int64, which of its tokens they are; None for all.
        """
        return tokens

    def device(self) -> torch.device:
        """Where the encoder is."""
        device: torch.device = next(self.encoder_layers()[0].parameters()).device
        return device


def with_processor(stock: Any, info: Any, processor: Any) -> Any:
    """Decorator that gives a model class our processor where it has settings, and vLLM's own where not."""
    factories = stock._processor_factory

    def make_info(ctx: Any) -> Any:
        return factories.info(ctx) if started(ctx.model_config) is None else info(ctx)

    def make_processor(made: Any, dummies: Any) -> Any:
        return processor(made, dummies) if isinstance(made, PrunedInfo) else factories.processor(made, dummies)

    return MULTIMODAL_REGISTRY.register_processor(make_processor, info=make_info, dummy_inputs=factories.dummy_inputs)
