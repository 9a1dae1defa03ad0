"""What the shrunk full image still shows of what its sub-images show."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from hired.core.layout import Layout
from hired.core.transfer import moved_to


def shown_by_full(pixels: Tensor, layout: Layout) -> Tensor:
    """For every cell of the full image, by how much the contrast that it shows outweighs the contrast that is lost.

    Each sub-image is shrunk to the full image's resolution and grown again; what is left of the variance inside of a
    token's patch is shown, the rest is lost: (shown - lost) / lost. Small print and fine texture are lost, large shapes
    shown; where there is no contrast, nothing is shown.

    Args:
        pixels: (P, channels, height, width) the partitions as the encoder got them, the full image first.
        layout: the image, of at least one sub-image.

    Returns:
        (N,) float32, 0 and more. A few operations a pixel; waits for nothing.
    """
    tiles = pixels[1:].float()
    cells = layout.cells_of(1)
    (x0, y0, x1, y1), tile = layout.boxes[0], layout.boxes[1]
    shares = (tile[3] - tile[1]) / (y1 - y0), (tile[2] - tile[0]) / (x1 - x0)
    small = max(1, round(tiles.shape[2] * shares[0])), max(1, round(tiles.shape[3] * shares[1]))
    coarse = interpolate(adaptive_avg_pool2d(tiles, small), size=tiles.shape[2:], mode="bilinear")
    whole, lost = _contrast(tiles, cells), _contrast(tiles - coarse, cells)
    place = moved_to(pixels.device, _places(layout))
    sums = whole.new_zeros(3, layout.cells_per_partition + 1)
    for row, values in enumerate((whole, lost, torch.ones_like(lost))):
        sums[row].scatter_add_(0, place, values)
    whole, lost, count = sums[:, :-1].unbind()
    # Beside the usual loss in the picture, so that flat places show nothing.
    usual = lost.sum() / count.sum().clamp(min=1)
    found: Tensor = (whole - 2 * lost).clamp(min=0) / (lost + usual * count).clamp(min=1e-12)
    return found


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
