"""Where every visual token of one image comes from."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

STRUCTURE = -1
"""Value of `Layout.partition` and `Layout.cell` for a token that shows no patch (a row-end newline)."""

Box = tuple[float, float, float, float]


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
        rows: (grid rows, cell rows) float64, the share of each row of the full image's cells that each row of
            sub-images covers.
        columns: (grid columns, cell columns) float64, likewise.
        cells: cells of one partition as (rows, columns).
        grid: sub-images as (rows, columns); (0, 0) when the picture is not cut.
        boxes: the rectangle each partition covers, (x0, y0, x1, y1) in pixels of `size`, or of the encoder's
            input where `size` is None. A sub-image may reach beyond the picture where its canvas is padded.
        size: the picture as (width, height) in pixels, None when unknown.
        capacity: patch tokens each partition holds after unpadding, P numbers.
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
        )

    def to(self, device: torch.device) -> "Layout":
        """The same layout with its tensors on `device`."""
        names = ("partition", "cell", "line", "rows", "columns")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

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
        """Tokens of one partition before unpadding (N)."""
        return self.cells[0] * self.cells[1]

    def cell_box(self, partition: int, cell: int) -> Box:
        """The rectangle one cell of one partition shows, in the pixels of `boxes`, cut at the picture's edge."""
        x0, y0, x1, y1 = self.boxes[partition]
        rows, columns = self.cells
        row, column = divmod(cell, columns)
        width, height = (x1 - x0) / columns, (y1 - y0) / rows
        left, top, right, bottom = (0.0, 0.0, *map(float, self.size)) if self.size else self.boxes[0]
        return (
            max(left, x0 + column * width),
            max(top, y0 + row * height),
            min(right, x0 + (column + 1) * width),
            min(bottom, y0 + (row + 1) * height),
        )


def _overlap(spans: list[tuple[float, float]], length: float, cells: int) -> Tensor:
    """Share of each of `cells` equal cells of 0..length that every span covers: (spans, cells) float64."""
    edges = torch.linspace(0.0, length, cells + 1, dtype=torch.float64)
    limits = torch.tensor(spans, dtype=torch.float64).reshape(-1, 2)
    low, high = limits[:, :1], limits[:, 1:]
    covered = torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])
    return covered.clamp(min=0.0) / (length / cells)
