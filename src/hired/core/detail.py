"""What the shrunk full image still shows of what its sub-images show."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

from hired.core.layout import Layout
from hired.core.transfer import moved_to

KELL = 0.7
"""The Kell factor: a raster shows details down to 1 / 0.7 of its pixels only (R. D. Kell, A. V. Bedford, M. A. Trainer,
Proceedings of the IRE 22, 1934, found 0.64; 0.7 is the figure in use)."""
NEAR = 3
"""Cells, rows and columns, that are looked at together: what is drawn is larger than a token."""


def odds(pixels: Tensor, layout: Layout, resolved: float = KELL, near: int = NEAR) -> tuple[Tensor, Tensor]:
    """For every cell of the full image, shown / lost: the contrast it still shows, over what shrinking took away.

    Each sub-image is shrunk to what the full image resolves and grown again; what is left of the variance inside of a
    token's patch is shown, the rest is lost. Small print and fine texture are lost, large shapes shown; where there is
    no contrast, nothing is shown.

    Args:
        pixels: (P, channels, height, width) the partitions as the encoder got them, the full image first.
        layout: the image, of at least one sub-image.
        resolved: share of the full image's pixels, down and across, that what it resolves is worth.
        near: rows and columns of cells that are summed, an odd number.

    Returns:
        (N + 1,) float32, 0 and more, the last one 1 for what lies in no cell; and (sub-images * cells,) int64, in the
        order of partitions, the full image's cell that shows each sub-image's cell, N where there is none. A few
        operations a pixel; waits for nothing.
    """
    tiles = pixels[1:].float()
    cells = layout.cells_of(1)
    (x0, y0, x1, y1), tile = layout.boxes[0], layout.boxes[1]
    shares = resolved * (tile[3] - tile[1]) / (y1 - y0), resolved * (tile[2] - tile[0]) / (x1 - x0)
    small = max(1, round(tiles.shape[2] * shares[0])), max(1, round(tiles.shape[3] * shares[1]))
    coarse = interpolate(adaptive_avg_pool2d(tiles, small), size=tiles.shape[2:], mode="bilinear")
    whole, lost = _contrast(tiles, cells), _contrast(tiles - coarse, cells)
    place = moved_to(pixels.device, _places(layout))
    sums = whole.new_zeros(3, layout.cells_per_partition + 1)
    for row, values in enumerate((whole, lost, torch.ones_like(lost))):
        sums[row].scatter_add_(0, place, values)
    inside = sums[:, :-1]
    # Beside the usual loss in the picture, so that flat places show nothing.
    usual = inside[1].sum() / inside[2].sum().clamp(min=1)
    whole, lost, count = avg_pool2d(inside.view(3, *layout.cells), near, 1, near // 2).flatten(1)
    found = (whole - lost).clamp(min=0) / (lost + usual * count).clamp(min=1e-12)
    return torch.cat((found, found.new_ones(1))), place


def _contrast(pixels: Tensor, cells: tuple[int, int]) -> Tensor:
    """(tiles * cells,) variance inside of each cell, summed over channels."""
    mean = adaptive_avg_pool2d(pixels, cells)
    return (adaptive_avg_pool2d(pixels.square(), cells) - mean.square()).clamp_(min=0).sum(1).flatten()


def _places(layout: Layout) -> Tensor:
    """(tiles * cells,) int64 on the CPU: the full image's cell that shows the middle of each tile's cell; N if none."""
    rows, columns = layout.cells
    down, across = layout.cells_of(1)
    x0, y0, x1, y1 = layout.boxes[0]
    boxes = torch.tensor(layout.boxes[1:], dtype=torch.float64)
    middle_y = (torch.arange(down, dtype=torch.float64) + 0.5) / down
    middle_x = (torch.arange(across, dtype=torch.float64) + 0.5) / across
    y = ((boxes[:, 1:2] + middle_y * (boxes[:, 3:] - boxes[:, 1:2]) - y0) / (y1 - y0) * rows).floor().long()
    x = ((boxes[:, :1] + middle_x * (boxes[:, 2:3] - boxes[:, :1]) - x0) / (x1 - x0) * columns).floor().long()
    y, x = y[:, :, None], x[:, None]
    inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    return torch.where(inside, y * columns + x, rows * columns).flatten()
