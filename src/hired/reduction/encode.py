"""Second stage: one run of the vision encoder, reading attention on the way."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hired.core.image import Attention
from hired.core.layout import STRUCTURE, Layout
from hired.encoding.altered import altered
from hired.encoding.readings import PIXELS, by_patch, recording, taps_for
from hired.encoding.run import Cut, run
from hired.encoding.taps import tapping
from hired.encoding.waiting import may_be_empty, worth_waiting
from hired.errors import UnsupportedModelError
from hired.families import Encoder
from hired.methods.base import shares_of, told_early
from hired.reduction.encoded import Encoded
from hired.reduction.plan import Plan
from hired.reduction.project import projected


def encode(plan: Plan, *, everything: bool = False, reads: Collection[str] = ()) -> Encoded:
    """Encodes all images of the plan, once.

    Args:
        plan: the plan.
        everything: compute every token of every image, so that any choice can be made afterwards.
        reads: what to read beside what the plan's method reads, for the choices of other methods.
    """
    reads = {*reads, *plan.method.reads}
    if not (plan.drops or (everything and plan.has_images)):
        return Encoded([Attention()] * len(plan.layouts))
    trains = torch.is_grad_enabled() and bool(plan.model.training)
    # What a caller has hooked on or put in place of the encoder's parts expects the encoder to run as it is.
    thrifty = not (everything or trains) and plan.family.tokenwise and not altered(plan.model)
    with torch.set_grad_enabled(trains):
        if thrifty and plan.encoder is not None:
            return _needed(plan, plan.encoder, reads)
        if plan.encoder_budget is not None and plan.family.tokenwise and not (everything or trains):
            raise UnsupportedModelError(
                "encoder_budget needs an encoder without hooks and replaced methods of the caller's: leave one out"
            )
        if plan.encoder is None:
            return Encoded([Attention()] * len(plan.layouts), _features(plan))
        found = _everything(plan, plan.encoder, reads)
        if everything:  # the shares of this plan would not be those of the choice to come
            return found
        firsts = [each.first for each in found.attention]
        device = next((first.device for first in firsts if first is not None), plan.model.device)
        return replace(found, shares=_shares(plan, firsts)) if told_early(plan.method, device) else found


def _features(plan: Plan) -> list[Tensor]:
    features = plan.family.encode(plan.model, plan.inputs)
    counts = [layout.tokens_full for layout in plan.layouts]
    if len(features) != sum(counts):
        raise UnsupportedModelError(
            f"the encoder gave {len(features)} visual tokens where {sum(counts)} were expected:"
            " this checkpoint does not work as its family does"
        )
    return list(torch.split(features, counts))


def _everything(plan: Plan, encoder: Encoder, reads: Collection[str]) -> Encoded:
    """The untouched model's features, and what else is read."""
    family, layouts = plan.family, plan.layouts
    full = family.full_images(layouts) if family.batched else None
    taps = taps_for(encoder, reads, full, keys=family.tokenwise)
    states: dict[int, Any] = {}
    with ExitStack() as stack:
        reading = stack.enter_context(tapping(encoder.tower, list(taps.values())))
        if {"states", "pixels"} & {*reads}:
            states = stack.enter_context(recording(encoder, reading))
        features = _features(plan)
    rows = {
        name: (family.first_rows if name == "first" else family.last_rows)(tap.rows, encoder, layouts)
        for name, tap in taps.items()
    }
    pixels = states.get(PIXELS) if "pixels" in reads and family.batched else None
    if pixels is not None and (pixels.dim() != 4 or len(pixels) != sum(layout.partitions for layout in layouts)):
        pixels = None  # an encoder that takes patches in place of squares
    return Encoded(
        _attention(encoder, reads, rows, len(layouts)),
        features,
        states=by_patch(encoder, states) if family.tokenwise and "states" in reads else None,
        pixels=None if pixels is None else family.by_image(pixels, layouts),
    )


def _needed(plan: Plan, encoder: Encoder, reads: Collection[str]) -> Encoded:
    """Encoder outputs as far as the kept tokens and the choice need them."""
    pixels = plan.family.pixels(plan.inputs, plan.layouts)
    shares: list[Tensor | None] | None = None

    def divide(first: Tensor) -> list[int]:
        """Tells `shares`; an image that stays as it is keeps everything."""
        nonlocal shares
        shares = _shares(plan, list(first))
        return [
            tokens
            for layout, share in zip(plan.layouts, shares or (), strict=True)
            for tokens in ([layout.cells_per_partition] * layout.partitions if share is None else share.tolist())
        ]

    cut, waits = _cut(plan, encoder), _waits(plan, pixels.device)
    # A row whose newline stays may be filled up with a token of a partition that has no share.
    stops = waits and plan.newlines == "drop" and hasattr(plan.method, "shares") and _may_stop(plan, pixels.device)
    patches = run(
        encoder,
        pixels,
        plan.family.full_places(plan.layouts),
        reads=reads,
        divide=divide if stops or cut or told_early(plan.method, pixels.device) else None,
        stops=stops,
        cut=cut,
        twins=waits,
    )
    counts = [layout.partitions for layout in plan.layouts]
    rows = {name: list(torch.split(row, counts)) if len(counts) > 1 else [row] for name, row in patches.rows.items()}
    if patches.first is not None:
        rows["first"] = list(patches.first)
    found = Encoded(
        _attention(encoder, reads, rows, len(counts)),
        patches=patches,
        shares=shares,
        pixels=plan.family.by_image(pixels, plan.layouts) if "pixels" in reads else None,
    )
    return replace(found, features=projected(plan, found, [None] * len(counts))) if "features" in reads else found


def _waits(plan: Plan, device: torch.device) -> bool:
    """Whether the encoder's work is worth a wait that may shorten it."""
    return worth_waiting(device, sum(layout.partitions * layout.cells_per_partition for layout in plan.layouts))


def _may_stop(plan: Plan, device: torch.device) -> bool:
    """Whether it is worth a wait to see which partitions keep nothing."""
    cut = [(layout, total) for layout, total in zip(plan.layouts, plan.totals, strict=True) if total is not None]
    kept, partitions = sum(total for _, total in cut), sum(layout.partitions for layout, _ in cut)
    return may_be_empty(device, kept, partitions)


def _shares(plan: Plan, firsts: Sequence[Tensor | None]) -> list[Tensor | None] | None:
    """Tokens of each partition of every image that loses some, as far as the method tells them so early."""
    return shares_of(plan.method, plan.layouts, firsts, plan.totals, plan.newlines)


def _cut(plan: Plan, encoder: Encoder) -> Cut | None:
    if plan.encoder_budget is None:
        return None
    layouts = [placed or layout for layout, placed in zip(plan.layouts, plan.placed, strict=True)]
    real = torch.cat([_real(layout) for layout in layouts])
    return Cut(plan.encoder_budget.layer(encoder.first, encoder.last), plan.encoder_budget, real)


def _real(layout: Layout) -> Tensor:
    """(P, N) bool: the patches that the packer hands on."""
    size = layout.partitions * layout.cells_per_partition
    place = layout.partition * layout.cells_per_partition + layout.cell
    place = torch.where(layout.partition == STRUCTURE, torch.full_like(place, size), place)
    real = torch.zeros(size + 1, dtype=torch.bool, device=place.device)
    return real.scatter_(0, place, True)[:-1].view(layout.partitions, -1)


def _attention(encoder: Encoder, reads: Collection[str], rows: dict[str, list[Tensor]], count: int) -> list[Attention]:
    """What was read of each of `count` images, from each reading's rows by image."""
    if "received" in reads and encoder.cls is None:
        rows = {**rows, "received": rows["last"]}
    return [Attention(**{name: each[index] for name, each in rows.items()}) for index in range(count)]
