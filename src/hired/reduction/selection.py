"""Reports of what was kept, worked out only when somebody asks."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from hired.core.image import Attention
from hired.core.layout import STRUCTURE, Box, Layout


class Token(NamedTuple):
    """One visual token.

    Attributes:
        row: its index among the image's untouched tokens.
        partition: its partition, 0 for the full image; None for a newline.
        cell: its (row, column) in the partition's grid; None for a newline.
        box: (x0, y0, x1, y1) of what it shows, in pixels of the original picture where its size is known, else
            of the encoder's input; None for a newline, and for a token that shows nothing but padding.
    """

    row: int
    partition: int | None
    cell: tuple[int, int] | None
    box: Box | None


class Counts(NamedTuple):
    """How many visual tokens a number of pictures had, and how many they were left with.

    Attributes:
        pictures: pictures.
        tokens_full: visual tokens of the untouched pictures, newlines included.
        tokens_kept: visual tokens kept of them, kept newlines included.
    """

    pictures: int = 0
    tokens_full: int = 0
    tokens_kept: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True, eq=False)
class ImageSelection:
    """What was kept of one image.

    Attributes:
        size: the picture as (width, height) in pixels, None where the inputs do not tell.
        grid: sub-images as (rows, columns), (0, 0) for a model that does not cut pictures.
        partitions: partitions, the full image included.
        tokens_full: visual tokens of the untouched image, newlines included.
        tokens_real: patch tokens among them (R).
        tokens_kept: visual tokens kept, kept newlines included.
        per_partition: patch tokens kept of each partition, the full image first.
        rows: indices of the kept tokens among the untouched ones, in order.
        boxes: the rectangle each partition covers; a sub-image may reach beyond the picture.
        content: (cell rows, cell columns) float32, attention CLS -> patch of the full image in the initial layer, or
            received by the patch in an encoder without CLS, summed over heads; None where it was not read (another
            method, or no image of the batch loses tokens).
    """

    size: tuple[int, int] | None
    grid: tuple[int, int]
    partitions: int
    tokens_full: int
    tokens_real: int
    tokens_kept: int
    per_partition: list[int]
    rows: list[int]
    boxes: list[Box]
    content: Tensor | None
    _layout: Layout

    @classmethod
    def of(cls, layout: Layout, kept: Tensor | None, attention: Attention) -> "ImageSelection":
        """The report on one image, from its layout (on the CPU), the kept rows and the attention read."""
        rows = torch.arange(layout.tokens_full) if kept is None else kept.cpu()
        shown = layout.partition[rows]
        first = attention.first
        return cls(
            size=layout.size,
            grid=layout.grid,
            partitions=layout.partitions,
            tokens_full=layout.tokens_full,
            tokens_real=layout.tokens_real,
            tokens_kept=rows.numel(),
            per_partition=torch.bincount(shown[shown != STRUCTURE], minlength=layout.partitions).tolist(),
            rows=rows.tolist(),
            boxes=list(layout.boxes),
            content=None if first is None else first.float().sum(0).view(layout.cells).cpu(),
            _layout=layout,
        )

    @property
    def share_kept(self) -> float:
        """Patch tokens kept, as a share of R."""
        return sum(self.per_partition) / self.tokens_real if self.tokens_real else 1.0

    @cached_property
    def tokens(self) -> list[Token]:
        """Every kept token, in the order the LLM sees them."""
        return [self._token(row) for row in self.rows]

    @cached_property
    def real_tokens(self) -> list[Token]:
        """Every patch token of the untouched image, kept or not."""
        real = (self._layout.partition != STRUCTURE).nonzero().flatten().tolist()
        return [self._token(row) for row in real]

    def _token(self, row: int) -> Token:
        partition, cell = int(self._layout.partition[row]), int(self._layout.cell[row])
        if partition == STRUCTURE:
            return Token(row, None, None, None)
        x0, y0, x1, y1 = self._layout.token_box(row)
        box = (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
        return Token(row, partition, divmod(cell, self._layout.cells_of(partition)[1]), box)
