"""Batches whose rows are padded at both ends and masked in between, and what cutting them by hand gives."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.support import models

PAD = 0


@dataclass(frozen=True)
class Shape:
    """How one row is to stand: padding in front and behind, and which of its text tokens are masked (by number)."""

    lead: int
    trail: int
    holes: tuple[int, ...]


def token_of(name: str) -> int:
    """Id of a family's placeholder."""
    return models.ALL[name].by_hand.token(models.shared(name))


def texts_of(name: str, inputs: Any) -> list[list[int]]:
    """Of every row the places, among its real tokens, that hold no placeholder."""
    token = token_of(name)
    rows = [ids[mask.bool()] for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    return [(row != token).nonzero().flatten().tolist() for row in rows]


def ragged(name: str, inputs: Any, shapes: list[Shape]) -> dict[str, Any]:
    """The same rows, padded and masked as `shapes` say, with labels of their own places."""
    shape = inputs["input_ids"].shape
    entries = {key: value for key, value in inputs.items() if isinstance(value, Tensor) and value.shape == shape}
    made: dict[str, list[Tensor]] = {key: [] for key in entries}
    rows = []
    for index, each in enumerate(shapes):
        real = inputs["attention_mask"][index].bool()
        rows.append({key: value[index][real] for key, value in entries.items()})
        for hole in each.holes:
            rows[-1]["attention_mask"][texts_of(name, inputs)[index][hole]] = 0
    width = max(each.lead + len(row["input_ids"]) + each.trail for each, row in zip(shapes, rows, strict=True))
    for each, row in zip(shapes, rows, strict=True):
        lead = width - len(row["input_ids"]) - each.trail if each.lead else 0
        trail = width - len(row["input_ids"]) - lead
        for key, values in row.items():
            made[key].append(torch.cat((values.new_full((lead,), PAD), values, values.new_full((trail,), PAD))))
    batch = {**inputs, **{key: torch.stack(values) for key, values in made.items()}}
    numbers = torch.arange(batch["input_ids"].numel()).view_as(batch["input_ids"]) + 1000
    padding = torch.stack([_padding(mask) for mask in batch["attention_mask"]])
    batch["numbers"] = numbers.masked_fill(padding, PAD)
    return batch


def _padding(mask: Tensor) -> Tensor:
    """True in front of the first valid place of a row and behind the last."""
    valid = mask.bool().long()
    return (valid.cumsum(0) == 0) | (valid.flip(0).cumsum(0).flip(0) == 0)


def cut_by_hand(
    name: str, batch: dict[str, Any], kept: list[list[int]], lengths: list[int]
) -> list[list[tuple[int, ...]]]:
    """Of every row (id, mask, number) of its places from the first valid one to the last, dropped ones left out."""
    token, image, used = token_of(name), 0, 0
    found = []
    for index in range(len(batch["input_ids"])):
        row: list[tuple[int, ...]] = []
        inner = ~_padding(batch["attention_mask"][index])
        entries = (batch[key][index][inner].tolist() for key in ("input_ids", "attention_mask", "numbers"))
        for ident, valid, number in zip(*entries, strict=True):
            if ident == token:
                stays = used in kept[image]
                used += 1
                if used == lengths[image]:
                    used, image = 0, image + 1
                if not stays:
                    continue
            row.append((ident, valid, number))
        found.append(row)
    assert used == 0
    assert image == len(kept)
    return found
