"""The loss of a call whose caller counted the labels of the full prompt."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hired.errors import InputsError
from hired.reduction.entries import IGNORED_LABEL, LABELS


def adapt_loss(call: Mapping[str, Any], reduced: Any) -> None:
    """Takes labels of dropped tokens out of `num_items_in_batch`, by which a loss is divided; in place, in `reduced`.

    Args:
        call: the caller's arguments.
        reduced: the reduced inputs.

    Raises:
        InputsError: such labels, and a number that counts more than this call's.
    """
    items = call.get("num_items_in_batch")
    if items is None:
        return
    for name in LABELS:
        before, after = call.get(name), reduced.get(name)
        if not (isinstance(before, Tensor) and isinstance(after, Tensor)):
            continue
        counts = _counts(before), _counts(after)
        if counts[0] == counts[1]:
            continue
        told = int(items)
        if told not in counts[0]:
            raise InputsError(
                f"num_items_in_batch={told} counts labels of tokens that are dropped, beside other batches': set labels"
                f" of image placeholders to {IGNORED_LABEL}"
            )
        kept = counts[1][counts[0].index(told)]
        reduced["num_items_in_batch"] = torch.full_like(items, kept) if isinstance(items, Tensor) else kept


def _counts(labels: Tensor) -> tuple[int, int]:
    """(labels, those of them that are predicted, as nothing predicts a row's first)."""
    told = labels != IGNORED_LABEL
    return int(told.sum()), int(told[:, 1:].sum())
