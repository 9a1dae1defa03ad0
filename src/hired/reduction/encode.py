"""Second stage: one run of the vision encoder, reading attention on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hired.core.image import Attention
from hired.core.layout import STRUCTURE, Layout
from hired.core.transfer import moved_to
from hired.encoding.altered import altered
from hired.encoding.run import Cut, Patches, run
from hired.encoding.taps import Tap, tapping
from hired.errors import UnsupportedModelError
from hired.families import Encoder
from hired.methods.base import shares_of
from hired.reduction.plan import Plan


@dataclass(frozen=True)
class Encoded:
    """What the vision encoder gave: either `features` or `patches`, neither where nothing is dropped.

    Attributes:
        attention: one entry an image; empty entries where the method reads none.
        features: one (T, hidden) tensor an image, as the untouched model would hand it to its LLM.
        patches: encoder outputs that are still to be projected, for the partitions and patches that may be kept.
        shares: (P,) int64 on the CPU, tokens of each partition for every image; None where the method has not told
            them.
    """

    attention: list[Attention]
    features: list[Tensor] | None = None
    patches: Patches | None = None
    shares: list[Tensor | None] | None = None


def encode(plan: Plan, *, everything: bool = False) -> Encoded:
    """Encodes all images of the plan, once.

    Args:
        plan: the plan.
        everything: compute every token of every image, so that any choice can be made afterwards.
    """
    if not (plan.drops or (everything and plan.has_images)):
        return Encoded([Attention()] * len(plan.layouts))
    trains = torch.is_grad_enabled() and bool(plan.model.training)
    # What a caller has hooked on or put in place of the encoder's parts expects the encoder to run as it is.
    thrifty = not (everything or trains) and plan.family.tokenwise and not altered(plan.model)
    with torch.set_grad_enabled(trains):
        if thrifty and plan.encoder is not None:
            return _needed(plan, plan.encoder)
        if plan.encoder_budget is not None and plan.family.tokenwise and not (everything or trains):
            raise UnsupportedModelError(
                "encoder_budget needs an encoder without hooks and replaced methods of the caller's: leave one out"
            )
        if plan.encoder is None:
            return Encoded([Attention()] * len(plan.layouts), _features(plan))
        found = _everything(plan, plan.encoder)
        # With everything computed, the shares of this plan would not be those of the choice to come.
        return found if everything else replace(found, shares=_shares(plan, [each.first for each in found.attention]))


def _features(plan: Plan) -> list[Tensor]:
    features = plan.family.encode(plan.model, plan.inputs)
    counts = [layout.tokens_full for layout in plan.layouts]
    if len(features) != sum(counts):
        raise UnsupportedModelError(
            f"the encoder gave {len(features)} visual tokens where {sum(counts)} were expected:"
            " this checkpoint does not work as its family does"
        )
    return list(torch.split(features, counts))


def _everything(plan: Plan, encoder: Encoder) -> Encoded:
    """The untouched model's features, and the rows that the method reads."""
    family, layouts = plan.family, plan.layouts
    full = family.full_images(layouts) if family.batched else None
    first = Tap(encoder.attention(encoder.first), encoder.cls, full) if plan.method.reads_first else None
    last = Tap(encoder.attention(encoder.last), encoder.cls) if plan.method.reads_last else None
    with tapping(encoder.tower, [tap for tap in (first, last) if tap is not None]):
        features = _features(plan)
    none: list[Tensor | None] = [None] * len(layouts)
    firsts = none if first is None else family.first_rows(first.rows, encoder, layouts)
    lasts = none if last is None else family.last_rows(last.rows, encoder, layouts)
    return Encoded([Attention(one, other) for one, other in zip(firsts, lasts, strict=True)], features)


def _needed(plan: Plan, encoder: Encoder) -> Encoded:
    """Encoder outputs as far as the kept tokens need them."""
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

    patches = run(
        encoder,
        pixels,
        moved_to(pixels.device, plan.family.full_images(plan.layouts)),
        reads_first=plan.method.reads_first,
        reads_last=plan.method.reads_last,
        divide=divide if hasattr(plan.method, "shares") else None,
        # A row whose newline stays may be filled up with a token of a partition that has no share.
        stops=plan.newlines == "drop",
        cut=_cut(plan, encoder),
    )
    return Encoded(_attention(plan, patches.first, patches.last), patches=patches, shares=shares)


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


def _attention(plan: Plan, first: Tensor | None, last: Tensor | None) -> list[Attention]:
    """Rows by image: (images, heads, N) of the full images, (partitions, heads, N) of all partitions."""
    count = len(plan.layouts)
    firsts = [None] * count if first is None else list(first)
    lasts = [None] * count if last is None else list(torch.split(last, [layout.partitions for layout in plan.layouts]))
    return [Attention(one, other) for one, other in zip(firsts, lasts, strict=True)]
