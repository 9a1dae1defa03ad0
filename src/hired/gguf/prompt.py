"""What `hired.reduce` returns as llama.cpp takes it: text as ids, kept visual tokens as embeddings, and positions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hired.caching import cache_in
from hired.errors import InputsError
from hired.families import Family, family_of
from hired.reduction.reduced import ENCODER_OUTPUTS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Prompt", "Run", "read_prompt"]


@dataclass(frozen=True)
class Run:
    """Tokens of one kind that follow each other.

    Attributes:
        start, end: where they stand in the prompt.
        rows: (n, width) float32 embeddings of visual tokens; None for text.
        digest: of the rows, by which they are known again.
    """

    start: int
    end: int
    rows: np.ndarray | None = None
    digest: bytes = b""


@dataclass(frozen=True)
class Prompt:
    """One prompt, without padding.

    Attributes:
        ids: (length,) int32, placeholders in the places of visual tokens.
        positions: (axes, length) int32; 4 axes for M-RoPE (time, row, column, 0), else 1.
        runs: its tokens by kind, in order.
        shown: (1, width) int64 what the caller gave, padding included.
    """

    ids: np.ndarray
    positions: np.ndarray
    runs: list[Run]
    shown: Tensor

    @property
    def text(self) -> np.ndarray:
        """Ids that are fed as such."""
        parts = [self.ids[run.start : run.end] for run in self.runs if run.rows is None]
        return np.concatenate(parts) if parts else self.ids[:0]

    @property
    def follows(self) -> int:
        """Position of the token behind it."""
        return int(self.positions.max()) + 1

    def goes_on_from(self, ids: np.ndarray, positions: np.ndarray, digests: list[bytes]) -> bool:
        """Whether the prompt begins with these tokens and holds more.

        Args:
            ids: (held,) int32.
            positions: (axes, held) int32.
            digests: of the visual ones, one a run.
        """
        held = len(ids)
        mine = [run.digest for run in self.runs if run.rows is not None and run.start < held]
        return (
            0 < held < len(self.ids)
            and np.array_equal(ids, self.ids[:held])
            and np.array_equal(positions, self.positions[:, :held])
            and digests == mine
        )


def read_prompt(reduced: Any, model: Any, axes: int, width: int) -> Prompt:
    """Reads what `hired.reduce` returned for one prompt.

    Pictures of which nothing was dropped are encoded here, whole.

    Args:
        reduced: the mapping.
        model: the model or tower that it was reduced for.
        axes: positions that an embedding has in the file's architecture.
        width: values of an embedding.

    Raises:
        InputsError: it is no such mapping or of several prompts, its parts do not fit each other or the file, or
            features are no finite numbers.
    """
    ids = _checked(reduced)
    family = family_of(model)
    mask = reduced.get("attention_mask")
    real = torch.ones_like(ids[0], dtype=torch.bool) if mask is None else mask[0].ne(0)
    kept = ids[0][real].cpu()
    if not len(kept):
        raise InputsError("the prompt is empty: attention_mask masks all of it")
    visual = kept == family.image_token(model)
    rows = _rows(reduced, model, family, int(visual.sum()), width)
    places = _positions(reduced, model, family, real, axes)
    return Prompt(kept.to(torch.int32).numpy(), places, _runs(visual.numpy(), rows), ids)


def _checked(reduced: Any) -> Tensor:
    """The ids of a mapping that holds one prompt."""
    if not isinstance(reduced, Mapping):
        raise InputsError(f"generate takes what hired.reduce returns, got {type(reduced).__name__}")
    ids, mask = reduced.get("input_ids"), reduced.get("attention_mask")
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or not ids.numel():
        raise InputsError('input_ids must be a (1, length) tensor: call the processor with return_tensors="pt"')
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InputsError(f"input_ids must be whole numbers, got {ids.dtype}")
    if len(ids) != 1:
        raise InputsError(f"llama.cpp answers one prompt at a time here, got {len(ids)}: reduce each by itself")
    if mask is not None and (not isinstance(mask, torch.Tensor) or mask.shape != ids.shape):
        raise InputsError("attention_mask must be a tensor of the shape of input_ids")
    if cache_in(reduced) is not None or reduced.get("inputs_embeds") is not None:
        raise InputsError("a cache or inputs_embeds of transformers cannot be used with llama.cpp: leave them out")
    return ids


@torch.no_grad()
def _rows(reduced: Mapping[str, Any], model: Any, family: Family, count: int, width: int) -> np.ndarray:
    """(count, width) float32 features of all visual tokens, those of several layers side by side."""
    encoded = (reduced.get(ENCODER_OUTPUTS) or {}).get("image")
    if encoded is not None:
        features = family.features(encoded)
    elif reduced.get("pixel_values") is not None:
        # Nothing was dropped: the model itself would encode the pictures now.
        features = family.encode(model, reduced)
    else:
        features = torch.empty(0, width)
    if not features.is_floating_point():
        raise InputsError(f"features of pictures must be floating-point numbers, got {features.dtype}")
    rows: Tensor = features.flatten(1).to("cpu", torch.float32).contiguous()
    if rows.shape != (count, width):
        raise InputsError(
            f"the prompt has {count} image placeholders and the GGUF file takes {width} values for each, the pictures"
            f" give {rows.shape[0]} x {rows.shape[1]}: file, model and inputs must be of one checkpoint"
        )
    if not bool(torch.isfinite(rows).all()):
        raise InputsError(
            "features of pictures hold values that are no finite numbers: is the model's dtype too small?"
        )
    return rows.numpy()


def _positions(reduced: Mapping[str, Any], model: Any, family: Family, real: Tensor, axes: int) -> np.ndarray:
    """(axes, length) int32 positions of the tokens that are no padding."""
    given = reduced.get("position_ids")
    length = int(real.sum())
    if axes == 1:
        if given is not None and not torch.equal(
            given.reshape(-1, len(real))[0][real].cpu().long(), torch.arange(length)
        ):
            raise InputsError(
                "llama.cpp takes consecutive positions only for this language model and position_ids have gaps: reduce"
                ' with positions="consecutive"'
            )
        return np.arange(length, dtype=np.int32)[None]
    if given is None and family.grid_positions and reduced.get("pixel_values") is not None:
        given = family.positions(model, reduced)
    found = np.zeros((axes, length), np.int32)
    if given is None:
        found[:3] = np.arange(length, dtype=np.int32)
    else:
        # In front of time, row and column there may be the place in the text.
        found[:3] = given.reshape(-1, len(real))[-3:, real].cpu().to(torch.int32).numpy()
    return found


def _runs(visual: np.ndarray, rows: np.ndarray) -> list[Run]:
    """Text and visual tokens in turn."""
    borders = [0, *(np.flatnonzero(visual[1:] != visual[:-1]) + 1).tolist(), len(visual)]
    runs, used = [], 0
    for start, end in pairwise(borders):
        if not visual[start]:
            runs.append(Run(start, end))
            continue
        own = rows[used : used + end - start]
        used += end - start
        runs.append(Run(start, end, own, hashlib.blake2b(own.data, digest_size=16).digest()))
    return runs
