"""What HiRED must know of a model family. A family is one file with one subclass of `Family`."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hired.core.layout import Box, Layout
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
        cls: index of the CLS token in the encoder's sequence; None for an encoder without one, whose scores are the
            attention that each patch receives, averaged over all queries.
        merge: (N, k) int64, the k encoder patches that each visual token is made of where the model merges equally
            many patches of a partition (pixel shuffle, 2 x 2 merger, average pool); None where a token is one patch.
    """

    tower: Any
    layers: Sequence[nn.Module]
    states: tuple[int, ...]
    first: int = 0
    cls: int | None = 0
    merge: Tensor | None = None

    @property
    def last(self) -> int:
        """Index of the last layer whose output the model uses (paper: l_final)."""
        return max(self.states) - 1

    def attention(self, layer: int) -> nn.Module:
        """The attention module of a layer."""
        module: nn.Module = self.layers[layer].self_attn  # type: ignore[assignment]
        return module

    def scores(self, rows: Tensor) -> Tensor:
        """What a tap read, (..., keys), over the N visual tokens of a partition: without the key of the CLS token, and
        pooled as `merge` says, a token having the mean of its patches.
        """
        if self.cls is not None:
            last = self.cls % rows.shape[-1]
            rows = torch.cat((rows[..., :last], rows[..., last + 1 :]), -1) if last else rows[..., 1:]
        return rows if self.merge is None else rows[..., self.merge.to(rows.device)].mean(-1)


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

    def patch_rows(self, rows: list[Tensor], encoder: Encoder) -> Tensor:
        """What a tap read, one entry a call of its layer, as one (items, heads, N) tensor over visual tokens."""
        return encoder.scores(torch.cat(rows))


def core_model(model: Any) -> Any:
    """The part of a model that holds encoder and LLM: without its language modelling head, and any PEFT wrapper."""
    unwrap = getattr(model, "get_base_model", None)
    return (unwrap() if callable(unwrap) else model).base_model


def tower_parts(model: Any) -> Encoder:
    """The parts of a CLIP or SigLIP vision tower used as LLaVA uses it.

    SigLIP has no CLS token. Its pooling head, where a checkpoint has one, attends with a learned probe, but LLaVA's
    training never saw it and the towers come without it, so the attention received stands in.

    Raises:
        UnsupportedModelError: another tower, or features that are not a layer's output.
    """
    config, kind = model.config, model.config.vision_config.model_type
    check_square(model)
    tower = core_model(model).vision_tower
    layers = _encoder_layers(tower)
    used = config.vision_feature_layer
    count = len(layers)
    states = tuple(index if index >= 0 else count + 1 + index for index in ([used] if isinstance(used, int) else used))
    if not (1 <= max(states) <= count and min(states) >= 0):
        raise UnsupportedModelError(f"vision_feature_layer={used} is not the output of one of {count} encoder layers")
    return Encoder(tower=tower, layers=layers, states=states, cls=0 if kind == "clip_vision_model" else None)


def _encoder_layers(tower: Any) -> Any:
    for name, module in tower.named_modules():
        if name.endswith("encoder.layers"):
            return module
    raise UnsupportedModelError(f"no encoder layers found in {type(tower).__name__}")


SQUARE_TOWERS = {"clip_vision_model": "default", "siglip_vision_model": "full"}
"""Encoders that see one square of a fixed size, whatever the picture, and the strategy that selects their patches."""


def check_square(model: Any) -> None:
    """Raises `UnsupportedModelError` for an encoder of another kind, or one whose tokens are not just its patches."""
    kind, strategy = model.config.vision_config.model_type, model.config.vision_feature_select_strategy
    if kind not in SQUARE_TOWERS:
        raise UnsupportedModelError(
            f"the vision encoder {kind!r} is not supported here: known are {', '.join(SQUARE_TOWERS)}"
        )
    if strategy != SQUARE_TOWERS[kind]:
        wrong = "keeps the CLS token among the visual tokens" if strategy == "full" else "drops the first patch"
        raise UnsupportedModelError(
            f"vision_feature_select_strategy={strategy!r} {wrong} of this encoder: only {SQUARE_TOWERS[kind]!r} is"
            " supported"
        )


def square_cells(model: Any, pixel_values: Any) -> tuple[int, int]:
    """(side of the encoder's input in pixels, cells along it), checked against model and pixels.

    Raises:
        UnsupportedModelError: as `check_square`.
        InputsError: the pixels are not a float tensor of the encoder's input size.
    """
    check_square(model)
    config = model.config.vision_config
    side = int(config.image_size)
    if not isinstance(pixel_values, Tensor) or tuple(pixel_values.shape[-2:]) != (side, side):
        shape = tuple(pixel_values.shape) if isinstance(pixel_values, Tensor) else type(pixel_values).__name__
        raise InputsError(
            f"pixel_values {shape} do not fit the encoder's input of {side} x {side} pixels: use the model's own"
            ' processor with return_tensors="pt"'
        )
    return side, side // int(config.patch_size)


def seen_share(model: Any) -> float:
    """Share of the input's side that whole patches cover; the encoder does not see the rest at the far edges."""
    config = model.config.vision_config
    side, patch = int(config.image_size), int(config.patch_size)
    return side // patch * patch / side


def picture_sizes(inputs: Mapping[str, Any], sizes: list[Size] | None) -> list[Size]:
    """(width, height) of every picture, from the processor's `image_sizes`.

    Args:
        inputs: the processor's output, with `pixel_values`.
        sizes: what the caller gave as `images=`, if anything.

    Raises:
        InputsError: sizes that are missing, unreadable, of another number of pictures, or not the caller's.
    """
    image_sizes = inputs.get("image_sizes")
    if image_sizes is None:
        raise InputsError("image_sizes is missing beside pixel_values: pass on all that the processor returned")
    try:
        known = [(int(w), int(h)) for h, w in torch.as_tensor(image_sizes).tolist()]
    except (TypeError, ValueError, RuntimeError):
        raise InputsError(
            "image_sizes must be (height, width) pairs: pass on all that the processor returned"
        ) from None
    images = len(inputs["pixel_values"])
    if len(known) != images:
        raise InputsError(f"{images} images in pixel_values but {len(known)} in image_sizes")
    if any(min(size) < 1 for size in known):
        raise InputsError(f"a picture without area in image_sizes: {known}")
    if sizes is not None and sizes != known:
        raise InputsError(f"images= has sizes (width, height) {sizes}, the inputs were made from {known}")
    return known


def blank_tiles(config: Any, sizes: list[Size]) -> dict[str, Tensor]:
    """`Family.blank_inputs` where the processor cuts pictures by `image_grid_pinpoints` and pads all alike."""
    side = int(config.vision_config.image_size)
    most = 1 + max((height // side) * (width // side) for height, width in config.image_grid_pinpoints)
    return {
        "pixel_values": torch.empty(len(sizes), most, 3, side, side, device="meta"),
        "image_sizes": torch.tensor([(height, width) for width, height in sizes]),
    }


def canvas_tiles(size: Size, canvas: Size, side: int, seen: float = 1.0) -> tuple[Box, ...]:
    """Rectangles of the sub-images in pixels of the picture, which stands scaled in the middle of the canvas.

    Args:
        size: the picture, (width, height) in pixels.
        canvas: (width, height) in pixels of the encoder's input.
        side: side of a sub-image.
        seen: share of it that the encoder's patches cover, from its top left.
    """
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    shown = [min(math.ceil(length * scale), limit) for length, limit in zip(size, canvas, strict=True)]
    left, top = ((limit - length) // 2 for limit, length in zip(canvas, shown, strict=True))
    per_x, per_y = size[0] / shown[0], size[1] / shown[1]
    reach = side * seen
    return tuple(
        ((x - left) * per_x, (y - top) * per_y, (x + reach - left) * per_x, (y + reach - top) * per_y)
        for y in range(0, canvas[1], side)
        for x in range(0, canvas[0], side)
    )
