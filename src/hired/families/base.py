"""What HiRED must know of a model family. A family is one file with one subclass of `Family`."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hired.core.layout import Layout
from hired.errors import InputsError, UnsupportedModelError

Size = tuple[int, int]


def parameters_at_hand(module: nn.Module) -> AbstractContextManager[Any]:
    """Loads the module's own parameters where accelerate offloads them: its hook runs for `forward` only."""
    if not hasattr(module, "_hf_hook"):
        return nullcontext()
    from accelerate.utils import align_module_device

    loaded: AbstractContextManager[Any] = align_module_device(module)
    return loaded


@dataclass(frozen=True)
class Encoder:
    """The parts of a vision encoder that HiRED reads and steers.

    Attributes:
        tower: the encoder, called with all partitions in one batch; its attention implementation is switched while
            it is read.
        layers: its layers, in order; each takes (batch, tokens, d) hidden states first, and gives them back.
        states: which hidden states make the features, put side by side: i is the input of layer i, `len(layers)`
            the output of the last one.
        first: index of the initial layer (paper: l_init = 0).
        cls: index of the CLS token in the encoder's sequence.
    """

    tower: Any
    layers: Sequence[nn.Module]
    states: tuple[int, ...]
    first: int = 0
    cls: int = 0

    @property
    def last(self) -> int:
        """Index of the last layer whose output the model uses (paper: l_final)."""
        return max(self.states) - 1

    def attention(self, layer: int) -> nn.Module:
        """The attention module of a layer."""
        module: nn.Module = self.layers[layer].self_attn  # type: ignore[assignment]
        return module


class Family:
    """Facts of one family. The defaults fit models that stack all partitions of all images in one batch.

    Attributes:
        name: how `hired models` calls it.
        model_types: `config.model_type` of the models it covers.
        classes, encoder, partitions, tokens, verified: one line each for `hired models` and the docs.
        image_keys: what of the processor's output the encoder consumes.
        tokenwise: each visual token is made of one encoder output alone, so that only kept ones need be made;
            `pixels`, `project` and `newline` say how.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    classes: ClassVar[str]
    encoder: ClassVar[str]
    partitions: ClassVar[str]
    tokens: ClassVar[str]
    verified: ClassVar[str]
    image_keys: ClassVar[tuple[str, ...]] = ("pixel_values",)
    tokenwise: ClassVar[bool] = False

    def image_token(self, model: Any) -> int:
        """Id of the placeholder that stands for one visual token in `input_ids`."""
        return int(model.config.image_token_id)

    def layouts(self, model: Any, inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Layout]:
        """The layout of every image, in the order of the features. Runs no part of the model.

        Args:
            model: the model.
            inputs: the processor's output.
            sizes: (width, height) of every picture where the caller gave `images=`, else None.

        Raises:
            InputsError: the inputs do not fit the model.
        """
        raise NotImplementedError

    def blank_inputs(self, model: Any, sizes: list[Size]) -> dict[str, Tensor]:
        """What `layouts` reads of the processor's output for pictures of the given (width, height).

        Pixels are on the meta device, so that tokens can be counted without pictures and without memory.

        Raises:
            UnsupportedModelError: a family that has not told how its processor cuts pictures.
        """
        raise UnsupportedModelError(f"tokens of {self.name} are not known without its processor: use `hired.reduce`")

    def parts(self, model: Any) -> Encoder:
        """The encoder's parts.

        Raises:
            UnsupportedModelError: an encoder this family does not know.
        """
        raise NotImplementedError

    def encode(self, model: Any, inputs: Mapping[str, Any]) -> list[Tensor]:
        """Features of every image as the LLM will see them: one (T, hidden) tensor an image."""
        given = {key: inputs[key] for key in self.image_keys if key in inputs}
        with parameters_at_hand(core_model(model)):
            return list(model.get_image_features(**given, return_dict=True).pooler_output)

    def pixels(self, inputs: Mapping[str, Any], layouts: list[Layout]) -> Tensor:
        """All partitions of all images as the encoder takes them, (partitions, channels, height, width).

        Only for families that are `tokenwise`.
        """
        raise NotImplementedError

    def project(self, model: Any, patches: Tensor) -> Tensor:
        """What the LLM sees of (K, d) encoder outputs, (K, hidden). Only for families that are `tokenwise`."""
        raise NotImplementedError

    def newline(self, model: Any) -> Tensor | None:
        """(hidden,) what the LLM sees of a row-end newline, None in a family without."""
        return None

    def container(self, features: list[Tensor]) -> BaseModelOutputWithPooling:
        """`features`, one (K, hidden) tensor an image, as `mm_encoder_outputs["image"]` must hold them."""
        return BaseModelOutputWithPooling(pooler_output=features)

    def full_images(self, layouts: list[Layout]) -> Tensor:
        """(images,) int64: where the full image of every picture stands in the encoder's batch."""
        counts = torch.tensor([0] + [layout.partitions for layout in layouts[:-1]])
        return counts.cumsum(0)

    def patch_rows(self, rows: list[Tensor]) -> Tensor:
        """What a tap read, as one (items, heads, N) tensor over patches: the CLS token is the first key."""
        return torch.cat(rows)[:, :, 1:]


def core_model(model: Any) -> Any:
    """The part of a model that holds encoder and LLM: without its language modelling head, and any PEFT wrapper."""
    unwrap = getattr(model, "get_base_model", None)
    return (unwrap() if callable(unwrap) else model).base_model


def clip_parts(model: Any) -> Encoder:
    """The parts of a CLIP vision tower used as LLaVA uses it.

    Raises:
        UnsupportedModelError: another tower, or features that are not a layer's output.
    """
    config, kind = model.config, model.config.vision_config.model_type
    if kind != "clip_vision_model":
        raise UnsupportedModelError(
            f"the vision encoder {kind!r} has no CLS token HiRED can read: use a checkpoint with a CLIP tower"
        )
    tower = core_model(model).vision_tower
    layers = _encoder_layers(tower)
    used = config.vision_feature_layer
    count = len(layers)
    states = tuple(index if index >= 0 else count + 1 + index for index in ([used] if isinstance(used, int) else used))
    if not (1 <= max(states) <= count and min(states) >= 0):
        raise UnsupportedModelError(f"vision_feature_layer={used} is not the output of one of {count} encoder layers")
    return Encoder(tower=tower, layers=layers, states=states)


def _encoder_layers(tower: Any) -> Any:
    for name, module in tower.named_modules():
        if name.endswith("encoder.layers"):
            return module
    raise UnsupportedModelError(f"no encoder layers found in {type(tower).__name__}")


SQUARE_TOWERS = ("clip_vision_model", "siglip_vision_model")
"""Encoders that see one square of a fixed size, whatever the picture."""


def square_cells(model: Any, pixel_values: Any) -> tuple[int, int]:
    """(side of the encoder's input in pixels, cells along it), checked against model and pixels.

    Raises:
        UnsupportedModelError: an encoder of another kind, or one whose CLS token is among the visual tokens.
        InputsError: the pixels are not a float tensor of the encoder's input size.
    """
    config = model.config.vision_config
    if config.model_type not in SQUARE_TOWERS:
        raise UnsupportedModelError(
            f"the vision encoder {config.model_type!r} is not supported here: known are {', '.join(SQUARE_TOWERS)}"
        )
    strategy = model.config.vision_feature_select_strategy
    if config.model_type == "clip_vision_model" and strategy != "default":
        raise UnsupportedModelError(
            f"vision_feature_select_strategy={strategy!r} keeps the CLS token among the visual tokens: only 'default'"
            " is supported"
        )
    side = int(config.image_size)
    if not isinstance(pixel_values, Tensor) or tuple(pixel_values.shape[-2:]) != (side, side):
        shape = tuple(pixel_values.shape) if isinstance(pixel_values, Tensor) else type(pixel_values).__name__
        raise InputsError(
            f"pixel_values {shape} do not fit the encoder's input of {side} x {side} pixels: use the model's own"
            ' processor with return_tensors="pt"'
        )
    return side, side // int(config.patch_size)
