"""First stage: everything that can be known, and can be wrong, before the model runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hired.core.budget import Budget, EncoderBudget, Newlines
from hired.core.layout import Layout
from hired.errors import InputsError
from hired.families import Encoder, Family, family_of
from hired.methods import Method, resolve
from hired.reduction.checks import (
    Positions,
    check_choices,
    check_encoder,
    check_encoder_budget,
    check_entries,
    check_inputs,
)
from hired.reduction.cut import Beforehand
from hired.reduction.positions import CONSECUTIVE
from hired.reduction.rows import Rows, read_rows
from hired.reduction.sizes import sizes_of


@dataclass(frozen=True)
class Plan:
    """What `encode`, `select` and `assemble` need.

    Attributes:
        model, family, inputs: the caller's model, its facts, the caller's inputs (not copied, not changed).
        method, newlines, positions: the settings.
        layouts: one an image, tensors on the CPU.
        placed: the same with tensors beside the pixels, for images that lose tokens; None for the others.
        totals: tokens each image may keep; None for images that stay as they are.
        images_per_row: images of every row of the batch.
        rows: how the rows of the batch stand, and where their placeholders are.
        encoder: the parts to tap, None where the method reads no attention or nothing is dropped.
        encoder_budget: what the encoder's later layers still see; None for everything.
        grid_positions: (axes, batch, length) int64 positions of the full prompt, where they depend on the picture's
            grid and tokens are dropped; else None.
        beforehand: how the inputs are cut, where that is known before the choice.
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
    images_per_row: list[int]
    rows: Rows
    encoder: Encoder | None
    encoder_budget: EncoderBudget | None = None
    grid_positions: Tensor | None = None
    beforehand: Beforehand | None = None

    @property
    def has_images(self) -> bool:
        """False for a batch of text only, which passes through."""
        return bool(self.layouts)

    @property
    def drops(self) -> bool:
        """Whether any image loses tokens; inputs of which none does pass through."""
        return any(total is not None for total in self.totals)


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
    check_inputs(inputs, model)
    rows = read_rows(model, inputs, family.image_token(model))
    ids: Tensor = inputs["input_ids"]
    new = inputs if not rows.start else {**inputs, "input_ids": ids[:, rows.start :]}
    layouts = _layouts(family, model, new, images, sum(rows.counts))
    images_per_row = _match(rows.counts, layouts)
    check_entries(inputs)
    totals = [parsed.allowance(layout) for layout in layouts]
    drops = any(total is not None for total in totals)
    if drops and rows.behind and family.grid_positions:
        raise InputsError(
            f"new pictures behind a cache are not supported for {family.name}, whose positions depend on all pictures"
            " of the prompt: leave the cache out"
        )
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
        images_per_row=images_per_row,
        rows=rows,
        encoder=check_encoder(family, model, chosen, narrowed) if drops else None,
        encoder_budget=narrowed if drops else None,
        grid_positions=_grid_positions(family, model, inputs, rows) if drops and family.grid_positions else None,
        beforehand=_beforehand(inputs, rows, layouts, totals, newlines)
        if drops and rows.alike and positions == CONSECUTIVE and getattr(chosen, "exact", True)
        else None,
    )


def _beforehand(
    inputs: Mapping[str, Any], rows: Rows, layouts: list[Layout], totals: list[int | None], newlines: Newlines
) -> Beforehand | None:
    """How the inputs are cut, from how many tokens of each picture are kept; None where that does not tell."""
    dropped = []
    for layout, total in zip(layouts, totals, strict=True):
        kept = total if total is None or newlines == "keep" else min(total, layout.tokens_real)
        dropped.append(0 if kept is None else layout.tokens_full - kept)
    tokens = [layout.tokens_full for layout in layouts]
    return Beforehand.of(rows, tokens, dropped, labelled="labels" in inputs, device=inputs["input_ids"].device)


def _grid_positions(family: Family, model: Any, inputs: Mapping[str, Any], rows: Rows) -> Tensor | None:
    """Positions of the full prompt that the caller did not tell."""
    if inputs.get("position_ids") is not None:
        return None
    return family.positions(model, {**inputs, "attention_mask": rows.mask})


def _layouts(family: Family, model: Any, inputs: Mapping[str, Any], images: Any, placeholders: int) -> list[Layout]:
    pixels = inputs.get("pixel_values")
    if pixels is None or (isinstance(pixels, Tensor) and pixels.shape[0] == 0):
        if placeholders:
            raise InputsError(f"input_ids hold {placeholders} image placeholders but there are no pixel_values")
        return []
    if not placeholders:
        raise InputsError("there are pixel_values but input_ids hold no image placeholder: is <image> in the prompt?")
    return family.layouts(model, inputs, None if images is None else sizes_of(images))


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
            ones = ", ".join(map(str, left[: used + 1]))
            told = f"the next ones have {ones} tokens" if left else "there are none left"
            raise InputsError(
                f"row {row} holds {count} image placeholders, which is no whole number of images ({told}): was the"
                " prompt truncated, or are model and processor of two checkpoints?"
            )
        images_per_row.append(used)
        left = left[used:]
    if left:
        raise InputsError(f"{len(left)} of {len(layouts)} images have no placeholders in input_ids")
    return images_per_row
