"""Where every visual token comes from: the library's layouts against plain ones written from the definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hired.core.layout import STRUCTURE
from hired.families.llava import Llava
from tests.support import models
from tests.support.layouts import CELLS, layout_of, plain_tokens, slow_layout

lengths = st.integers(1, 260)


@given(lengths, lengths)
def test_every_token_is_where_the_definition_puts_it(width: int, height: int) -> None:
    layout, plain = layout_of(width, height), slow_layout(width, height)
    assert layout.grid == plain.grid
    assert plain_tokens(layout) == plain.tokens
    assert layout.size == (width, height)
    assert layout.partitions == 1 + plain.grid[0] * plain.grid[1]
    assert layout.tokens_full == len(plain.tokens)
    assert layout.tokens_real == sum(token is not None for token in plain.tokens)
    for partition in range(layout.partitions):
        held = sum(token is not None and token[0] == partition for token in plain.tokens)
        assert layout.capacity[partition] == held


@given(lengths, lengths)
def test_lines_join_the_tokens_of_a_canvas_row_and_their_newline(width: int, height: int) -> None:
    layout = layout_of(width, height)
    line = 0
    for partition, got in zip(layout.partition.tolist(), layout.line.tolist(), strict=True):
        assert got == (STRUCTURE if partition == 0 else line)
        line += partition == STRUCTURE


@given(lengths, lengths)
def test_boxes_put_the_picture_in_the_middle_of_the_canvas(width: int, height: int) -> None:
    layout, plain = layout_of(width, height), slow_layout(width, height)
    left, top = ((canvas - shown) // 2 for canvas, shown in zip(plain.canvas, plain.shown, strict=True))
    assert layout.boxes[0] == (0, 0, width, height)
    for index, box in enumerate(layout.boxes[1:]):
        row, column = divmod(index, plain.grid[1])
        for axis, place, start, length in ((0, column, left, width), (1, row, top, height)):
            # From pixels of the picture back to pixels of the canvas.
            scale = plain.shown[axis] / length
            assert box[axis] * scale + start == pytest.approx(place * models.SIDE)
            assert box[axis + 2] * scale + start == pytest.approx((place + 1) * models.SIDE)


@given(lengths, lengths)
def test_cell_boxes_tile_the_full_image_and_stay_in_the_picture(width: int, height: int) -> None:
    layout = layout_of(width, height)
    area = 0.0
    for cell in range(CELLS * CELLS):
        x0, y0, x1, y1 = layout.cell_box(0, cell)
        assert 0 <= x0 < x1 <= width + 1e-9
        assert 0 <= y0 < y1 <= height + 1e-9
        area += (x1 - x0) * (y1 - y0)
    assert area == pytest.approx(width * height)


@given(lengths, lengths)
def test_sub_images_cover_the_full_image_once(width: int, height: int) -> None:
    layout = layout_of(width, height)
    assert layout.rows.shape == (layout.grid[0], CELLS)
    assert layout.columns.shape == (layout.grid[1], CELLS)
    torch.testing.assert_close(layout.rows.sum(0), torch.ones(CELLS, dtype=torch.float64))
    torch.testing.assert_close(layout.columns.sum(0), torch.ones(CELLS, dtype=torch.float64))


@pytest.mark.parametrize("size", [(96, 10), (10, 96), (64, 64), (64, 20)])
def test_padding_is_not_in_the_layout(size: tuple[int, int]) -> None:
    layout = layout_of(*size)
    padded = layout.partitions * layout.cells_per_partition
    assert (layout.tokens_real < padded) == (size != (64, 64))


def test_newline_rows_of_the_whole_canvas() -> None:
    layout = layout_of(64, 64)
    assert (layout.partition == STRUCTURE).sum() == 2 * CELLS
    assert layout.tokens_full == 5 * CELLS * CELLS + 2 * CELLS


@given(lengths, lengths)
def test_llava_sees_the_middle_square(width: int, height: int) -> None:
    side = models.SIDE
    layout = Llava().layouts(
        models.shared("llava"), {"pixel_values": torch.zeros(1, 3, side, side)}, [(width, height)]
    )[0]
    x0, y0, x1, y1 = layout.boxes[0]
    short = min(width, height)
    assert (x1 - x0, y1 - y0) == (short, short)
    assert (x0 + x1, y0 + y1) == (width, height)
    assert layout.grid == (0, 0)
    assert layout.capacity == (CELLS * CELLS,)
    assert layout.rows.numel() == layout.columns.numel() == 0


def test_to_moves_what_has_one_entry_a_token() -> None:
    layout = layout_of(50, 40).to(torch.device("meta"))
    moved = {name: value.device.type for name, value in vars(layout).items() if isinstance(value, torch.Tensor)}
    assert moved == {"partition": "meta", "cell": "meta", "line": "meta", "rows": "cpu", "columns": "cpu"}
