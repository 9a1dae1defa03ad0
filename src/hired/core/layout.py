"""Where every visual token of one image comes from."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hired.core.slots import Slots
from hired.core.transfer import all_moved_to, moved_to

STRUCTURE = -1
"""Value of `Layout.partition` and `Layout.cell` for a token that shows no patch (a row-end newline)."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Mixing:
    """What tokens show that are each made of several cells, as after a resampling of the sub-images (T tokens).

    Attributes:
        index: (T, k) int64, the cells of each token as partition * N + cell; 0 for a newline.
        weight: (T, k) float32, what each cell contributes; every row sums to 1, that of a newline to 0.
        boxes: (T, 4) float64, the rectangle each token shows, as `Layout.boxes`.
    """

    index: Tensor
    weight: Tensor
    boxes: Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """The untouched visual tokens of one image, in the order the LLM sees them (T tokens, P partitions).

    Partition 0 is the full image; partitions 1.. are the sub-images, row by row. A model that does not cut
    pictures has partition 0 only. Made by `Layout.build`.

    Attributes:
        partition: (T,) int64, the partition of each token, `STRUCTURE` for a newline.
        cell: (T,) int64, the row-major cell of the token inside its partition, `STRUCTURE` for a newline.
        line: (T,) int64, the row of the sub-image canvas a token stands in, newlines included; `STRUCTURE`
            where no newline ends the token's row (tokens of the full image).
        rows: (grid rows, cell rows) float64 on the CPU, the share of each row of the full image's cells that each row
            of sub-images covers.
        columns: (grid columns, cell columns) float64 on the CPU, likewise.
        cells: cells of the full image as (rows, columns), and of every sub-image unless `tile_cells` says otherwise.
        grid: sub-images as (rows, columns); (0, 0) when the picture is not cut.
        boxes: the rectangle each partition covers, (x0, y0, x1, y1) in pixels of `size`, or of the encoder's
            input where `size` is None. A sub-image may reach beyond the picture where its canvas is padded.
        size: the picture as (width, height) in pixels, None when unknown.
        capacity: patch tokens each partition holds after unpadding, P numbers.
        mixing: None where every token is one cell. Else what the tokens are made of; `partition` and `cell` then name
            the cell in the middle of each token.
        tile_cells: cells of each sub-image as (rows, columns), where they are not those of the full image.
        origin: the same on the CPU, for one that was moved from there.
    """

    partition: Tensor
    cell: Tensor
    line: Tensor
    rows: Tensor
    columns: Tensor
    cells: tuple[int, int]
    grid: tuple[int, int]
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None
    capacity: tuple[int, ...]
    mixing: Mixing | None = None
    tile_cells: tuple[int, int] | None = None
    origin: "Layout | None" = field(default=None, repr=False)

    @classmethod
    def build(
        cls,
        partition: Tensor,
        cell: Tensor,
        line: Tensor,
        *,
        cells: tuple[int, int],
        grid: tuple[int, int] = (0, 0),
        boxes: tuple[Box, ...],
        size: tuple[int, int] | None,
        mixing: Mixing | None = None,
        tile_cells: tuple[int, int] | None = None,
    ) -> "Layout":
        """A layout with what follows from its geometry filled in. Tensors are expected on the CPU."""
        x0, y0, x1, y1 = boxes[0]
        vertical = [(b[1] - y0, b[3] - y0) for b in boxes[1 :: max(grid[1], 1)]]
        horizontal = [(b[0] - x0, b[2] - x0) for b in boxes[1 : 1 + grid[1]]]
        real = partition[partition != STRUCTURE]
        return cls(
            partition=partition,
            cell=cell,
            line=line,
            rows=_overlap(vertical, y1 - y0, cells[0]),
            columns=_overlap(horizontal, x1 - x0, cells[1]),
            cells=cells,
            grid=grid,
            boxes=boxes,
            size=size,
            capacity=tuple(torch.bincount(real, minlength=len(boxes)).tolist()),
            mixing=mixing,
            tile_cells=tile_cells,
        )

    def to(self, device: torch.device) -> "Layout":
        """The same layout with what it has for each token on `device`; `rows` and `columns` stay on the CPU.

        Moved once: a second call gives the same.
        """
        if device == self.partition.device:
            return self
        if device not in self._moved:
            with torch.inference_mode(False):
                self._moved[device] = self._on(device)
        return self._moved[device]

    @cached_property
    def _moved(self) -> "dict[torch.device, Layout]":
        """By device, where this has been moved to."""
        return {}

    def _on(self, device: torch.device) -> "Layout":
        names = ("partition", "cell", "line")
        there = all_moved_to(device, *(getattr(self, name) for name in names))
        moved: dict[str, Any] = dict(zip(names, there, strict=True))
        if self.mixing is not None:
            mixing = self.mixing
            index, weight = moved_to(device, mixing.index), moved_to(device, mixing.weight)
            moved["mixing"] = replace(mixing, index=index, weight=weight)
        return replace(self, **moved, origin=self)

    @cached_property
    def slots(self) -> Slots:
        """The tokens of every partition side by side, beside `partition`."""
        with torch.inference_mode(False):
            if self.origin is not None:
                return self.origin.slots.to(self.partition.device)
            return Slots.of(self.partition, self.capacity)

    @cached_property
    def overlaps(self) -> tuple[Tensor, Tensor]:
        """`rows` and `columns` beside `partition`."""
        with torch.inference_mode(False):
            return moved_to(self.partition.device, self.rows), moved_to(self.partition.device, self.columns)

    @property
    def tokens_full(self) -> int:
        """Visual tokens of the untouched image, newlines included (T)."""
        return self.partition.numel()

    @property
    def tokens_real(self) -> int:
        """Patch tokens of the untouched image, after unpadding and without newlines (R)."""
        return sum(self.capacity)

    @property
    def partitions(self) -> int:
        """Partitions, the full image included (P)."""
        return len(self.boxes)

    @property
    def cells_per_partition(self) -> int:
        """Tokens of one partition before unpadding (N); of the full image where sub-images have others."""
        return self.cells[0] * self.cells[1]

    def cells_of(self, partition: int) -> tuple[int, int]:
        """Cells of a partition as (rows, columns)."""
        return self.cells if self.tile_cells is None or partition == 0 else self.tile_cells

    @property
    def tokens_budgeted(self) -> int:
        """Tokens that a budget given as a share is a share of: P x N, or R where the model mixes cells."""
        if self.mixing is not None:
            return self.tokens_real
        return sum(rows * columns for rows, columns in map(self.cells_of, range(self.partitions)))

    def of_tokens(self, values: Tensor) -> Tensor:
        """The values of tokens, (T,), from those of cells, (P, N): a token made of several cells has their mean.

        What stands at newlines means nothing.
        """
        if self.mixing is None:
            return values[self.partition, self.cell]
        return (values.flatten()[self.mixing.index] * self.mixing.weight.to(values.dtype)).sum(-1)

    def token_box(self, row: int) -> Box:
        """The rectangle that patch token `row` shows, in the pixels of `boxes`, cut at the picture's edge."""
        if self.mixing is None:
            return self.cell_box(int(self.partition[row]), int(self.cell[row]))
        x0, y0, x1, y1 = self.mixing.boxes[row].tolist()
        return self._inside((x0, y0, x1, y1))

    def cell_box(self, partition: int, cell: int) -> Box:
        """The rectangle one cell of one partition shows, in the pixels of `boxes`, cut at the picture's edge.

        A cell that shows padding only has a rectangle without area.
        """
        x0, y0, x1, y1 = self.boxes[partition]
        rows, columns = self.cells_of(partition)
        row, column = divmod(cell, columns)
        width, height = (x1 - x0) / columns, (y1 - y0) / rows
        return self._inside(
            (x0 + column * width, y0 + row * height, x0 + (column + 1) * width, y0 + (row + 1) * height)
        )

    def _inside(self, box: Box) -> Box:
        """The part of a rectangle that lies in the picture."""
        left, top, right, bottom = (0.0, 0.0, *map(float, self.size)) if self.size else self.boxes[0]
        x0, x1 = (min(max(x, left), right) for x in (box[0], box[2]))
        y0, y1 = (min(max(y, top), bottom) for y in (box[1], box[3]))
        return x0, y0, x1, y1


def _overlap(spans: list[tuple[float, float]], length: float, cells: int) -> Tensor:
    """Share of each of `cells` equal cells of 0..length that every span covers: (spans, cells) float64."""
    edges = torch.linspace(0.0, length, cells + 1, dtype=torch.float64)
    limits = torch.tensor(spans, dtype=torch.float64).reshape(-1, 2)
    low, high = limits[:, :1], limits[:, 1:]
    covered = torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])
    return covered.clamp(min=0.0) / (length / cells)
