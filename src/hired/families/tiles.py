"""What families share whose processors hand on tiles without the picture's size: one flat batch of squares.

How many tiles a picture has stands in `input_ids`. Into which grid it was cut follows from its size, where the caller
gives it, or from what the tiles show.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from hired.core.layout import STRUCTURE, Box, Layout
from hired.errors import InputsError
from hired.families.base import Size, match_sizes

Grid = tuple[int, int]
"""(rows, columns)."""


@dataclass(frozen=True)
class Run:
    """Placeholders that follow each other in a row of `input_ids`, from `start` up to `end`."""

    row: int
    start: int
    end: int

    @property
    def length(self) -> int:
        """How many they are."""
        return self.end - self.start


def placeholder_runs(ids: Tensor, token: int) -> list[Run]:
    """All runs of `token` in (batch, length) `ids`, row by row."""
    edges = torch.nn.functional.pad((ids == token).to(torch.int8), (1, 1)).diff(dim=1)
    starts, ends = ((edges == step).nonzero().tolist() for step in (1, -1))
    return [Run(row, start, end) for (row, start), (_, end) in zip(starts, ends, strict=True)]


def tiles_of_runs(runs: list[Run], tokens: int, tiles: int) -> list[int]:
    """Tiles of each run, for a family whose tiles have `tokens` placeholders and follow each other without tags.

    Args:
        runs: one an image.
        tokens: placeholders of one tile.
        tiles: how many there are in the pixels.

    Raises:
        InputsError: runs that are no whole number of tiles, or of other tiles than the pixels.
    """
    for run in runs:
        if run.length % tokens:
            raise InputsError(
                f"row {run.row} holds a picture of {run.length} image placeholders, which is no whole number of tiles"
                f" of {tokens}: was the prompt truncated, or are model and processor of two checkpoints?"
            )
    counts = [run.length // tokens for run in runs]
    check_tiles(sum(counts), tiles)
    return counts


def tiles_of_groups(runs: list[Run], ends: list[bool], tokens: int, tiles: int) -> list[int]:
    """Tiles of each image, for a family whose tiles are a run each, with tags between.

    Args:
        runs: one a tile.
        ends: which of them end their image.
        tokens, tiles: as in `tiles_of_runs`.

    Raises:
        InputsError: runs that are no tile, a picture that does not end in its row, or other tiles than the pixels'.
    """
    counts, row = [0], 0
    for run, end in zip(runs, ends, strict=True):
        if counts[-1] and run.row != row:
            raise _endless(row)
        row = run.row
        if run.length != tokens:
            raise InputsError(
                f"row {run.row} holds a tile of {run.length} image placeholders in place of {tokens}: was the prompt"
                " truncated, or are model and processor of two checkpoints?"
            )
        counts[-1] += 1
        if end:
            counts.append(0)
    if counts.pop():
        raise _endless(row)
    check_tiles(sum(counts), tiles)
    return counts


def _endless(row: int) -> InputsError:
    return InputsError(f"the end of the last picture of row {row} is missing in input_ids: do not truncate the prompt")


def check_tiles(told: int, tiles: int) -> None:
    """Raises `InputsError` where `input_ids` tell of another number of tiles than the pixels hold."""
    if told != tiles:
        raise InputsError(
            f"input_ids hold placeholders for {told} tiles, pixel_values hold {tiles}: pass on all that the processor"
            " returned, and do not truncate the prompt"
        )


Canvas = Callable[[Size, int], tuple[int, int]]
"""From a picture's (width, height) and the most tiles it may have to the (columns, rows) its processor cuts it into."""


def grids_of(counts: list[int], pixels: Tensor, sizes: list[Size] | None, canvas: Canvas) -> list[Grid]:
    """The grid of every picture, (0, 0) where it was not cut; the thumbnail is the last of a cut picture's tiles.

    Args:
        counts: tiles of each picture, its thumbnail included.
        pixels: (tiles, channels, side, side) of all pictures.
        sizes: (width, height) of every picture where the caller told.
        canvas: the processor's rule.

    Raises:
        InputsError: sizes that do not fit the tiles, or none where the tiles do not tell.
    """
    match_sizes(sizes, len(counts))
    grids, start = [], 0
    for index, count in enumerate(counts):
        own = pixels[start : start + count]
        start += count
        if count == 1:
            grids.append((0, 0))
        elif count == 2:
            raise InputsError(f"picture {index} has two tiles, which is no grid and a thumbnail: is use_thumbnail on?")
        elif sizes is None:
            grids.append(_grid_by_look(own, index))
        else:
            columns, rows = canvas(sizes[index], count - 1)
            if rows * columns != count - 1:
                raise InputsError(
                    f"images= holds a picture of {sizes[index][0]} x {sizes[index][1]} pixels, which is not cut into"
                    f" the {count - 1} tiles that the inputs hold: give the pictures the inputs were made from"
                )
            grids.append((rows, columns))
    return grids


_CELLS = 4
"""Places along each tile's side at which grids are compared with the thumbnail."""
CLEAR = 0.25
"""The best grid must differ from the thumbnail at most this much as the next best: squares of differences."""


def unlikeness(whole: Tensor, tiles: Tensor, grid: Grid) -> Tensor:
    """How much a picture differs from the mosaic of its tiles, (): the mean square of differences.

    Args:
        whole: (channels, side, side) the picture, squeezed to a square.
        tiles: (rows x columns, channels, side, side).
        grid: (rows, columns).
    """
    small = adaptive_avg_pool2d(tiles.float(), _CELLS)  # (tiles, channels, cells, cells)
    mosaic = small.view(*grid, -1, _CELLS, _CELLS).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    shown = adaptive_avg_pool2d(whole[None].float(), (grid[0] * _CELLS, grid[1] * _CELLS))[0]
    return (mosaic - shown).square().mean()


def _grid_by_look(tiles: Tensor, index: int) -> Grid:
    """The one grid whose mosaic of tiles looks like the thumbnail, which stands last. Waits for the device."""
    count = tiles.shape[0] - 1
    grids = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    errors = torch.stack([unlikeness(tiles[-1], tiles[:-1], grid) for grid in grids]).tolist()
    best, second = sorted(errors)[:2]
    if not best < CLEAR * second:
        raise InputsError(
            f"picture {index} is cut into {count} tiles that do not tell how they lie: pass images=, the pictures or"
            " their (width, height)"
        )
    return grids[errors.index(best)]


def grid_of_rows(ends: list[bool]) -> Grid:
    """The grid of a picture whose tags tell where a row of tiles ends, (0, 0) where it was not cut.

    Args:
        ends: for each tile, the thumbnail left out, whether it is the last of its row.

    Raises:
        InputsError: rows of unlike length, or a row without an end.
    """
    columns = ends.index(True) + 1 if True in ends else len(ends)
    if ends != [place % columns == 0 for place in range(1, len(ends) + 1)]:
        raise InputsError(
            f"the tags in input_ids tell of no grid of {len(ends)} tiles: use the model's own processor, and do not"
            " truncate the prompt"
        )
    return (len(ends) // columns, columns) if ends else (0, 0)


def squeezed_layout(
    grid: Grid,
    cells: Tensor,
    shape: tuple[int, int],
    size: Size | None,
    side: int,
    seen: float = 1.0,
    canvas: tuple[float, float] | None = None,
) -> Layout:
    """The layout of a picture that was squeezed onto a grid of tiles, the thumbnail behind them.

    Args:
        grid: (rows, columns), (0, 0) for a picture that was not cut.
        cells: (N,) int64, the cell of every token of a tile.
        shape: cells of a tile as (rows, columns).
        size: the picture; None for boxes in pixels of the thumbnail.
        side: side of a tile in pixels.
        seen: share of it that the encoder's patches cover, from its top left.
        canvas: (width, height) that the tiles cover in the same pixels, where the picture does not fill them.
    """
    rows, columns = grid
    tiles = rows * columns
    order = torch.tensor([*range(1, tiles + 1), 0])
    whole = size or (side, side)
    canvas = canvas or whole
    width, height = whole if tiles else canvas
    return Layout.build(
        partition=order.repeat_interleave(cells.numel()),
        cell=cells.repeat(tiles + 1),
        line=torch.full(((tiles + 1) * cells.numel(),), STRUCTURE),
        cells=shape,
        grid=grid,
        boxes=((0.0, 0.0, width * seen, height * seen), *even_boxes(grid, canvas, seen)),
        size=size,
    )


def even_boxes(grid: Grid, canvas: tuple[float, float], seen: float = 1.0) -> list[Box]:
    """The rectangles of a grid of tiles, row by row, as far as patches cover them.

    Args:
        grid: (rows, columns).
        canvas: (width, height) of the grid.
        seen: as in `squeezed_layout`.
    """
    (rows, columns), (width, height) = grid, canvas
    return [
        (
            column * width / columns,
            row * height / rows,
            (column + seen) * width / columns,
            (row + seen) * height / rows,
        )
        for row in range(rows)
        for column in range(columns)
    ]


def merged(patches: Tensor, columns: int, factor: int) -> tuple[Tensor, Tensor]:
    """From what a model's own merge made of patch indices, to `Encoder.merge` and the tokens' cells.

    Args:
        patches: (N, k), the patches that each token is made of, tokens in the order of the features.
        columns: patches along a row of a tile.
        factor: patches along the side of a token.

    Returns:
        ((N, k) int64, patches of each *cell*, row by row; (N,) int64, the cell of each token).
    """
    patches = patches.to(torch.int64)
    corner = patches.min(dim=1).values
    cells = corner // columns // factor * (columns // factor) + corner % columns // factor
    return patches[cells.argsort()], cells
