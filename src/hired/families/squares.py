"""What families share whose encoder sees one square of a fixed size, whatever the picture: CLIP and SigLIP towers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hired.core.layout import Box
from hired.errors import InputsError, UnsupportedModelError
from hired.families.base import Encoder, Size, core_model, match_sizes, unwrapped, used_states

SQUARE_TOWERS = {"clip_vision_model": "default", "siglip_vision_model": "full"}
"""Encoders that see one square of a fixed size, whatever the picture, and the strategy that selects their patches."""


def tower_parts(
    model: Any, merge: Tensor | None = None, *, used: int | Sequence[int] | None = None, strategy: str | None = None
) -> Encoder:
    """The parts of a CLIP or SigLIP vision tower used as LLaVA uses it.

    SigLIP has no CLS token. Its pooling head, where a checkpoint has one, attends with a learned probe, but LLaVA's
    training never saw it and the towers come without it, so the attention received stands in.

    Args:
        model: the model.
        merge: as in `Encoder`.
        used: the hidden states that make the features; None for what `vision_feature_layer` names.
        strategy: as in `check_square`.

    Raises:
        UnsupportedModelError: another tower, or features that are not a layer's output.
    """
    config, kind = model.config, model.config.vision_config.model_type
    check_square(model, strategy)
    tower = unwrapped(core_model(model).vision_tower)
    layers = _encoder_layers(tower)
    used, count = config.vision_feature_layer if used is None else used, len(layers)
    states = used_states(used, count)
    if not (1 <= max(states) <= count and min(states) >= 0):
        raise UnsupportedModelError(f"vision_feature_layer={used} is not the output of one of {count} encoder layers")
    return Encoder(
        tower=tower, layers=layers, states=states, cls=0 if kind == "clip_vision_model" else None, merge=merge
    )


def _encoder_layers(tower: Any) -> Any:
    for name, module in tower.named_modules():
        if name.endswith("encoder.layers"):
            return module
    raise UnsupportedModelError(f"no encoder layers found in {type(tower).__name__}")


def check_square(model: Any, strategy: str | None = None) -> None:
    """Raises `UnsupportedModelError` for an encoder of another kind, or one whose tokens are not just its patches.

    Args:
        model: the model.
        strategy: what the model does where it has no `vision_feature_select_strategy`.
    """
    kind = model.config.vision_config.model_type
    strategy = model.config.vision_feature_select_strategy if strategy is None else strategy
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


def square_cells(model: Any, pixel_values: Any, strategy: str | None = None) -> tuple[int, int]:
    """(side of the encoder's input in pixels, cells along it), checked against model and pixels.

    Args:
        model: the model.
        pixel_values: of all pictures.
        strategy: as in `check_square`.

    Raises:
        UnsupportedModelError: as `check_square`.
        InputsError: the pixels are not a float tensor of the encoder's input size.
    """
    check_square(model, strategy)
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


def picture_sizes(inputs: Mapping[str, Any], sizes: list[Size] | None, *, flat: bool = False) -> list[Size]:
    """(width, height) of every picture, from the processor's `image_sizes`.

    Args:
        inputs: the processor's output, with `pixel_values`.
        sizes: what the caller gave as `images=`, if anything.
        flat: the first axis of `pixel_values` is that of the partitions of all pictures, one behind the other.

    Raises:
        InputsError: sizes that are missing, unreadable, of another number of pictures, or not the caller's.
    """
    image_sizes = inputs.get("image_sizes")
    if image_sizes is None:
        raise InputsError("image_sizes is missing beside pixel_values: pass on all that the processor returned")
    try:
        pairs = [torch.as_tensor(pair).tolist() for pair in image_sizes]
        known = [(int(w), int(h)) for h, w in pairs]
    except (TypeError, ValueError, RuntimeError):
        raise InputsError(
            "image_sizes must be (height, width) pairs: pass on all that the processor returned"
        ) from None
    images = len(known) if flat else len(inputs["pixel_values"])
    if len(known) != images:
        raise InputsError(f"{images} images in pixel_values but {len(known)} in image_sizes")
    if any(min(size) < 1 for size in known):
        raise InputsError(f"a picture without area in image_sizes: {known}")
    match_sizes(sizes, images)
    if sizes is not None and sizes != known:
        raise InputsError(f"images= has sizes (width, height) {sizes}, the inputs were made from {known}")
    return known


def held_partitions(pixels: Tensor, partitions: list[int]) -> list[int]:
    """Partitions that `pixel_values` hold for every picture: padded to as many each, or flat, one behind the other.

    Args:
        pixels: (images, partitions, channels, height, width), or (partitions of all images, channels, height, width).
        partitions: into how many each picture is cut.

    Raises:
        InputsError: pixels of another shape, or flat ones that are not as many.
    """
    if pixels.dim() == 5:
        return [pixels.shape[1]] * len(partitions)
    if pixels.dim() != 4 or len(pixels) != sum(partitions):
        amount = "few" if len(pixels) < sum(partitions) else "many"
        raise InputsError(
            f"pixel_values {tuple(pixels.shape)} hold too {amount} partitions for the pictures in image_sizes, which"
            f" the model cuts into {sum(partitions)}: pass on all that the processor returned"
        )
    return partitions


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
