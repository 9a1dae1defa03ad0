"""Fourth stage: what the LLM sees of the kept tokens."""

import torch
from torch import Tensor

from hired.core.layout import STRUCTURE, Layout
from hired.encoding.run import Patches
from hired.reduction.encode import Encoded
from hired.reduction.plan import Plan


def project(plan: Plan, encoded: Encoded, kept: list[Tensor | None]) -> list[Tensor]:
    """Features of the kept tokens: one (K, hidden) tensor an image, none where nothing is dropped.

    Args:
        plan: the plan.
        encoded: what the encoder gave.
        kept: for every image sorted (K,) int64 indices into its untouched tokens, None to keep all.
    """
    if encoded.patches is None:
        if encoded.features is None:  # nothing is dropped
            return []
        return [
            feature if rows is None else feature.index_select(0, rows.to(feature.device))
            for feature, rows in zip(encoded.features, kept, strict=True)
        ]
    trains = torch.is_grad_enabled() and bool(plan.model.training)
    with torch.set_grad_enabled(trains):
        return _projected(plan, encoded.patches, kept)


def _projected(plan: Plan, patches: Patches, kept: list[Tensor | None]) -> list[Tensor]:
    """All images in one call of the projector, newlines put in afterwards."""
    device = patches.place.device
    partitions, cells, start = [], [], 0
    for layout, placed, rows in zip(plan.layouts, plan.placed, kept, strict=True):
        partition, cell = _tokens((placed or layout).to(device), rows)
        partitions.append(torch.where(partition == STRUCTURE, partition, partition + start))
        cells.append(cell)
        start += layout.partitions
    partition, cell = torch.cat(partitions), torch.cat(cells)
    features = plan.family.project(plan.model, patches.rows(partition.clamp(min=0), cell.clamp(min=0)))
    newline = plan.family.newline(plan.model)
    if newline is not None:
        structure = (partition == STRUCTURE)[:, None].to(features.device)
        features = torch.where(structure, newline.to(features), features)
    return list(torch.split(features, [len(part) for part in partitions]))


def _tokens(layout: Layout, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """Partition and cell of the kept tokens."""
    if kept is None:
        return layout.partition, layout.cell
    kept = kept.to(layout.partition.device)
    return layout.partition[kept], layout.cell[kept]
