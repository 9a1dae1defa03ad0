"""Third stage: which tokens of each image are kept."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hired.core.image import Image
from hired.core.layout import Layout
from hired.core.transfer import moved_to
from hired.reduction.encoded import Encoded
from hired.reduction.plan import Plan


def select(plan: Plan, encoded: Encoded) -> list[Tensor | None]:
    """Kept tokens of every image: sorted (K,) int64 indices into its untouched tokens, None where all are kept."""
    with torch.no_grad():
        return [None if image is None else plan.method.select(image) for image in images(plan, encoded)]


def images(plan: Plan, encoded: Encoded) -> Iterator[Image | None]:
    """Every image as the plan's method sees it, None for one that stays as it is."""
    shares = encoded.shares or [None] * len(plan.layouts)
    rows = [row for row, count in enumerate(plan.images_per_row) for _ in range(count)]
    start = 0
    for index, layout in enumerate(plan.layouts):
        placed, total, attention = plan.placed[index], plan.totals[index], encoded.attention[index]
        first, start = start, start + layout.partitions
        if placed is None or total is None:
            yield None
            continue
        read = [rows for rows in vars(attention).values() if rows is not None]
        if read:  # all of one device, but for what a model spread over several hands on
            placed = placed.to(read[-1].device)
        yield Image(
            layout=placed,
            attention=attention,
            total=total,
            newlines=plan.newlines,
            shares=shares[index],
            **_more(plan, encoded, index, placed, first, rows[index]),
        )


def _more(plan: Plan, encoded: Encoded, index: int, layout: Layout, start: int, row: int) -> dict[str, Tensor]:
    """What the method reads beside attention.

    Args:
        plan, encoded: the plan, and what the encoder gave.
        index: which image.
        layout: its layout.
        start: its first partition among those of all images.
        row: the row of the batch that it stands in.
    """
    reads: tuple[str, ...] = plan.method.reads
    found: dict[str, Tensor] = {}
    if "pixels" in reads and encoded.pixels is not None:
        found["pixels"] = encoded.pixels[index]
    if "features" in reads or ("states" in reads and not plan.family.tokenwise):
        if encoded.features is None:
            raise RuntimeError("the method reads features; the encoder stage made none")
        found["features"] = plan.family.embedded(plan.model, encoded.features[index])
    if "states" in reads:
        tokenwise = plan.family.tokenwise
        found["states"] = encoded.of(layout.partition + start, layout.cell) if tokenwise else found["features"]
    if "question" in reads:
        found["question"] = question(plan, row)
    return {name: moved_to(layout.partition.device, value) for name, value in found.items()}


def question(plan: Plan, row: int) -> Tensor:
    """(Q, hidden) embeddings of the text behind the last picture of a row, or of all its text where there is none.

    Padding and placeholders are not text. Waits for the device to know how much there is.
    """
    ids: Tensor = plan.inputs["input_ids"][row, plan.rows.start :]
    text = ids != plan.family.image_token(plan.model)
    if plan.rows.mask is not None:
        text = text & plan.rows.mask[row].bool().to(ids.device)
    place = torch.arange(ids.numel(), device=ids.device)
    last = torch.where(ids == plan.family.image_token(plan.model), place, -1).max()
    behind = text & (place > last)
    chosen = ids[torch.where(behind.any(), behind, text)]
    table = plan.model.get_input_embeddings()
    found: Tensor = table(moved_to(table.weight.device, chosen))
    return found
