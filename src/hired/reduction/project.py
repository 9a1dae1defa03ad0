"""Fourth stage: what the LLM sees of the kept tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hired.core.layout import STRUCTURE, Layout
from hired.methods.base import merged_of
from hired.reduction.encoded import Encoded
from hired.reduction.plan import Plan
from hired.reduction.select import images


def project(
    plan: Plan, encoded: Encoded, kept: list[Tensor | None], merges: list[Tensor | None] | None = None
) -> list[Tensor]:
    """Features of the kept tokens: one (K, hidden) tensor an image, none where nothing is dropped.

    Args:
        plan: the plan.
        encoded: what the encoder gave.
        kept: for every image sorted (K,) int64 indices into its untouched tokens, None to keep all.
        merges: what `merged` told, where it was asked before.
    """
    if encoded.patches is None and encoded.features is None:  # nothing is dropped
        return []
    trains = torch.is_grad_enabled() and bool(plan.model.training)
    with torch.set_grad_enabled(trains):
        merges = merged(plan, encoded, kept) if merges is None else merges
        untouched = all(merge is None for merge in merges)
        if encoded.features is not None and (untouched or not plan.family.tokenwise):
            return [chosen(*parts) for parts in zip(encoded.features, kept, merges, strict=True)]
        return projected(plan, encoded, kept, merges)


def merged(plan: Plan, encoded: Encoded, kept: list[Tensor | None]) -> list[Tensor | None]:
    """Of which tokens each kept one is the sum, (K, T) float32, for every image; None where they are left alone."""
    if not hasattr(plan.method, "merge"):
        return [None] * len(kept)
    with torch.no_grad():
        return [
            None if image is None or rows is None else merged_of(plan.method, image, rows)
            for image, rows in zip(images(plan, encoded), kept, strict=True)
        ]


def chosen(features: Tensor, rows: Tensor | None, merge: Tensor | None) -> Tensor:
    """The kept ones of (T, ...) features."""
    if rows is None:
        return features
    return features.index_select(0, rows.to(features.device)) if merge is None else mixed(merge, features)


def mixed(merge: Tensor, features: Tensor) -> Tensor:
    """Sums of (T, ...) features, by (K, T) weights: (K, ...)."""
    flat = features.flatten(1)
    return (merge.to(flat.device) @ flat.float()).to(flat.dtype).view(len(merge), *features.shape[1:])


def projected(
    plan: Plan, encoded: Encoded, kept: list[Tensor | None], merges: list[Tensor | None] | None = None
) -> list[Tensor]:
    """Encoder outputs of all images in one call of the projector, newlines put in afterwards.

    Args:
        plan, encoded, kept: as in `project`; the family is `tokenwise`.
        merges: what `merged` told; tokens are merged in front of the projector.
    """
    tokens, mixes, start = [], [], 0
    for index, (layout, rows) in enumerate(zip(plan.layouts, kept, strict=True)):
        placed, merge = plan.placed[index] or layout, None if merges is None else merges[index]
        tokens.append(_tokens(placed, None if merge is not None else rows, start))
        mixes.append((merge, placed.partition if rows is None else placed.partition[rows.to(placed.partition.device)]))
        start += layout.partitions
    partition, cell = map(_joined, zip(*tokens, strict=True))
    states = encoded.of(partition, cell)
    if any(merge is not None for merge, _ in mixes):
        each = torch.split(states, [len(part) for part, _ in tokens])
        states = torch.cat(
            [part if merge is None else mixed(merge, part) for part, (merge, _) in zip(each, mixes, strict=True)]
        )
    features = plan.family.project(plan.model, states)
    newline = plan.family.newline(plan.model)
    if newline is not None:
        structure = _joined([shown for _, shown in mixes])[:, None].to(features.device) == STRUCTURE
        features = torch.where(structure, newline.to(features), features)
    return list(torch.split(features, [len(shown) for _, shown in mixes])) if len(mixes) > 1 else [features]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _tokens(layout: Layout, kept: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
    """Partition, among those of all images, and cell of the kept tokens; what stands at newlines means nothing."""
    partition, cell = layout.partition, layout.cell
    if kept is not None:
        kept = kept.to(partition.device)
        partition, cell = partition[kept], cell[kept]
    return partition + start if start else partition, cell
