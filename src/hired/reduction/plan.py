"""First stage: everything that can be known, and can be wrong, before the model runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from hired.core.budget import Budget, EncoderBudget, Newlines
from hired.core.layout import Layout
from hired.core.transfer import moved_to, on_host
from hired.errors import BudgetError, InputsError, UnsupportedModelError
from hired.families import Encoder, Family, family_of
from hired.families.base import Size
from hired.methods import Method, resolve

Positions = Literal["consecutive", "original"]


@dataclass(frozen=True)
class Padding:
    """How a batch is padded, read before the model runs.

    Attributes:
        lengths: tokens of every row without its padding.
        starts: index of every row's first token.
        pad_id: the id that stands in padding, None where nothing is padded.
    """

    lengths: list[int]
    starts: list[int]
    pad_id: int | None


@dataclass(frozen=True)
class Plan:
    """What `encode`, `select` and `assemble` need.

    Attributes:
        model, family, inputs: the caller's model, its facts, the caller's inputs (not copied, not changed).
        method, newlines, positions: the settings.
        layouts: one an image, tensors on the CPU.
        placed: the same with tensors beside the pixels, for images that lose tokens; None for the others.
        totals: tokens each image may keep; None for images that stay as they are.
        placeholders: (sum of all T,) int64 flat indices into `input_ids` of the image placeholders, beside them.
        images_per_row: images of every row of the batch.
        padding: how the rows of the batch are padded.
        encoder: the parts to tap, None where the method reads no attention or nothing is dropped.
        encoder_budget: what the encoder's later layers still see; None for everything.
        grid_positions: (axes, batch, length) int64 positions of the full prompt, where they depend on the picture's
            grid and tokens are dropped; else None.
    """

    model: Any
    family: Family
    inputs: Mapping[str, Any]
    method: Method
    newlines: Newlines
    positions: Positions
    layouts: list[Layout]
    placed: list[Layout | None]
    totals: list[int | None]
    placeholders: Tensor
    images_per_row: list[int]
    padding: Padding
    encoder: Encoder | None
    encoder_budget: EncoderBudget | None = None
    grid_positions: Tensor | None = None

    @property
    def has_images(self) -> bool:
        """False for a batch of text only, which passes through."""
        return bool(self.layouts)


def plan(
    model: Any,
    inputs: Mapping[str, Any],
    budget: float,
    *,
    alpha: float = 0.5,
    method: str | Method = "hired",
    variant: str = "paper",
    newlines: Newlines = "drop",
    positions: Positions | None = None,
    encoder_budget: float | EncoderBudget | None = None,
    images: Any = None,
) -> Plan:
    """Validates everything `hired.reduce` was given and works out what each image may keep.

    Arguments and errors are those of `hired.reduce`. No part of the model runs.
    """
    parsed = Budget.parse(budget)
    chosen = resolve(method, variant, alpha)
    family = family_of(model)
    positions = check_choices(family, newlines, positions)
    narrowed = check_encoder_budget(encoder_budget, chosen, newlines)
    ids = _check_inputs(inputs, model)
    token = family.image_token(model)
    counts, padding, placeholders = _read_rows(ids, inputs.get("attention_mask"), token)
    layouts = _layouts(family, model, inputs, images, sum(counts))
    images_per_row = _match(counts, layouts)
    totals = [parsed.allowance(layout) for layout in layouts]
    drops = any(total is not None for total in totals)
    device = inputs["pixel_values"].device if layouts else ids.device
    # Pictures of one size may share a layout: it travels once.
    there = {id(layout): layout.to(device) for layout, total in zip(layouts, totals, strict=True) if total is not None}
    return Plan(
        model=model,
        family=family,
        inputs=inputs,
        method=chosen,
        newlines=newlines,
        positions=positions,
        layouts=layouts,
        placed=[None if total is None else there[id(layout)] for layout, total in zip(layouts, totals, strict=True)],
        totals=totals,
        placeholders=placeholders,
        images_per_row=images_per_row,
        padding=padding,
        encoder=check_encoder(family, model, chosen, narrowed) if drops else None,
        encoder_budget=narrowed if drops else None,
        grid_positions=family.positions(model, inputs) if drops and family.grid_positions else None,
    )


def check_choices(family: Family, newlines: str, positions: Positions | None) -> Positions:
    """The positions that kept tokens take, by default the family's.

    Raises:
        BudgetError: a value of `newlines` or `positions` that does not exist, or not in this family.
    """
    if positions is None:
        positions = "original" if family.grid_positions else "consecutive"
    for name, value, known in (
        ("newlines", newlines, get_args(Newlines)),
        ("positions", positions, get_args(Positions)),
    ):
        if value not in known:
            raise BudgetError(f"{name}={value!r}: use one of {', '.join(map(repr, known))}")
    if family.grid_positions and positions != "original":
        raise BudgetError(
            f"positions={positions!r} is not supported for {family.name}, whose positions tell where in the picture a"
            ' token stands: use "original", the default'
        )
    return positions


def check_encoder_budget(
    value: float | EncoderBudget | None, method: Method, newlines: Newlines
) -> EncoderBudget | None:
    """The parsed encoder budget.

    Raises:
        BudgetError: out of range, or together with a setting that chooses tokens it may have left out.
    """
    parsed = EncoderBudget.parse(value)
    if parsed is not None and not (method.reads_first and hasattr(method, "shares")):
        raise BudgetError(f"encoder_budget needs shares known from the initial layer; method {method.name!r} has none")
    if parsed is not None and newlines == "keep":
        raise BudgetError('encoder_budget cannot be combined with newlines="keep": leave one of them out')
    return parsed


def check_encoder(family: Family, model: Any, method: Method, narrowed: EncoderBudget | None) -> Encoder | None:
    """The encoder's parts, None where the method reads no attention.

    Raises:
        UnsupportedModelError: an encoder that the family does not know, or that cannot be given a budget of its own.
    """
    if not (method.reads_first or method.reads_last):
        return None
    encoder = family.parts(model)
    if narrowed is not None and not family.tokenwise:
        raise UnsupportedModelError(f"encoder_budget is not supported for {family.name}: leave it out")
    if narrowed is not None and encoder.last <= encoder.first:
        raise UnsupportedModelError("encoder_budget needs an encoder with layers after the initial one: leave it out")
    return encoder


def _read_rows(ids: Tensor, mask: Tensor | None, token: int) -> tuple[list[int], Padding, Tensor]:
    """(placeholders of every row, how the rows are padded, where placeholders stand), in one wait for the device."""
    here, valid = on_host([ids, torch.ones_like(ids) if mask is None else mask.bool().to(ids.dtype)])
    placeholder = here == token
    # The id of a row's first padded place; means nothing in a row without padding.
    filler = here.gather(1, valid.argmin(1, keepdim=True))[:, 0]
    counts, lengths, starts, fillers = (
        numbers.tolist() for numbers in (placeholder.sum(1), valid.sum(1), valid.argmax(1), filler)
    )
    padded = [ids.shape[1] - length for length in lengths]
    pad_id = next((filler for filler, count in zip(fillers, padded, strict=True) if count), None)
    places = moved_to(ids.device, placeholder.flatten().nonzero().flatten())
    return counts, Padding(lengths, starts, pad_id), places


def _check_inputs(inputs: Mapping[str, Any], model: Any) -> Tensor:
    """`input_ids` of inputs that have all that is needed and nothing that is not supported."""
    if not isinstance(inputs, Mapping):
        raise InputsError(f"inputs must be the mapping the processor returned, got {type(inputs).__name__}")
    if inputs.get("mm_encoder_outputs") is not None:
        raise InputsError("these inputs are already encoded (mm_encoder_outputs): pass what the processor returned")
    if any("video" in key and value is not None for key, value in inputs.items()):
        raise InputsError("videos are not supported yet: pass images only")
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2:
        raise InputsError('input_ids must be a (batch, length) tensor: call the processor with return_tensors="pt"')
    pixels = inputs.get("pixel_values")
    for name, value in (("input_ids", ids), ("pixel_values", pixels)):
        # Accelerate's hooks move inputs themselves where they spread a model with `device_map` or offload it.
        spread = getattr(model, "hf_device_map", None) or model.device.type == "meta"
        if isinstance(value, Tensor) and not spread and value.device != model.device:
            raise InputsError(f"{name} is on {value.device}, the model on {model.device}: call .to(model.device)")
    mask = inputs.get("attention_mask")
    if mask is not None and (not isinstance(mask, Tensor) or mask.shape != ids.shape):
        raise InputsError("attention_mask must be a tensor of the shape of input_ids")
    return ids


def _layouts(family: Family, model: Any, inputs: Mapping[str, Any], images: Any, placeholders: int) -> list[Layout]:
    pixels = inputs.get("pixel_values")
    if pixels is None or (isinstance(pixels, Tensor) and pixels.shape[0] == 0):
        if placeholders:
            raise InputsError(f"input_ids hold {placeholders} image placeholders but there are no pixel_values")
        return []
    if not placeholders:
        raise InputsError("there are pixel_values but input_ids hold no image placeholder: is <image> in the prompt?")
    sizes = None if images is None else [_size(image) for image in _flatten(images)]
    return family.layouts(model, inputs, sizes)


def _flatten(images: Any) -> list[Any]:
    if isinstance(images, list) or (isinstance(images, tuple) and not _is_size(images)):
        return [leaf for image in images for leaf in _flatten(image)]
    return [images]


def _is_size(value: Any) -> bool:
    return len(value) == 2 and all(isinstance(v, Integral) for v in value)


def _size(image: Any) -> Size:
    """(width, height) of a PIL picture, an array (channels first or last), or such a pair itself."""
    if isinstance(image, tuple) and _is_size(image):
        width, height = image
    elif isinstance(getattr(image, "size", None), tuple):
        width, height = image.size
    elif len(shape := tuple(getattr(image, "shape", ()))) in (2, 3):
        channels_first = len(shape) == 3 and shape[0] in (1, 3, 4)
        height, width = shape[1:] if channels_first else shape[:2]
    else:
        raise InputsError(f"images= must hold pictures or (width, height) pairs, got {type(image).__name__}")
    if width < 1 or height < 1:
        raise InputsError(f"images= holds a picture of {width} x {height} pixels")
    return int(width), int(height)


def _match(counts: list[int], layouts: list[Layout]) -> list[int]:
    """Images of every row, from the placeholders of every row; they must come out even."""
    left = [layout.tokens_full for layout in layouts]
    images_per_row = []
    for row, count in enumerate(counts):
        used = 0
        expected = 0
        while expected < count and used < len(left):
            expected += left[used]
            used += 1
        if expected != count:
            raise InputsError(
                f"row {row} holds {count} image placeholders, which is no whole number of images (next ones:"
                f" {left[: used + 1]} tokens): was the prompt truncated, or are model and processor of two checkpoints?"
            )
        images_per_row.append(used)
        left = left[used:]
    if left:
        raise InputsError(f"{len(left)} of {len(layouts)} images have no placeholders in input_ids")
    return images_per_row
