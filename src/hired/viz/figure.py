"""The figure of one selection: full image, tiles in place and heat map, arranged by the picture's shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hired.viz.panels import ACCENT, VEIL, VEIL_SHARE, Box, Panel, colours, heat_panel, token_panel
from hired.viz.text import (
    ARROW,
    FAINT,
    INK,
    PAPER,
    chip,
    chip_size,
    fitted,
    quietest,
    text,
    text_height,
    text_width,
)

if TYPE_CHECKING:
    from hired.reduction import ImageSelection

__all__ = ["draw"]

_MARGIN = 36
_SPACE = 28
_TITLE = 22
_HEAD = 38
_WIDE, _TALL = 2.2, 0.62


@dataclass
class _Block:
    """A titled panel with its labels, and its place in the figure (top left corner of the title)."""

    title: str
    panel: Panel
    labels: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    x: int = 0
    y: int = 0

    @property
    def side(self) -> int:
        """Width of the labels written beside the panel, 0 where they are not."""
        if not self.labels or not _outside(self):
            return 0
        return 12 + max(text_width(long, _TITLE) for long, _ in self.labels.values())

    @property
    def foot(self) -> int:
        """Height of the labels written below the panel, 0 where they are not."""
        return 4 + text_height(_TITLE) if self.labels and _below(self) else 0

    @property
    def width(self) -> int:
        return max(self.panel.image.width + self.side, text_width(self.title, _TITLE))

    @property
    def height(self) -> int:
        return _title_height() + self.panel.image.height + self.foot


def draw(image: Image.Image, selection: ImageSelection, *, note: str | None = None) -> Image.Image:
    """Draw which tokens of a picture are kept.

    Kept tokens are clear, dropped ones veiled, and what no token shows is hatched. With several
    partitions the figure has the full image, the tiles in place with their shares, and, where the
    method read it, the initial layer's attention on the full image with the share of it that each tile
    covers.

    Args:
        image: The original picture. Its size is that of the selection's boxes; a picture of another
            size is stretched to them.
        selection: One entry of ``reduced.selection``.
        note: A line under the caption, such as a question and its answer.

    Returns:
        The figure, RGB, about 1600 pixels on its longer side (up to 3400 for very long pictures).
    """
    image = image.convert("RGB")
    if selection.size is not None:
        image = image if image.size == tuple(selection.size) else image.resize(selection.size)
    else:
        right = max((box[2] for box in selection.boxes), default=image.width)
        bottom = max((box[3] for box in selection.boxes), default=image.height)
        image = image.resize((max(1, round(right)), max(1, round(bottom))))
    blocks, width, height = _arranged(image, selection)
    return _composed(blocks, (width, height), selection, note)


def _arranged(image: Image.Image, selection: ImageSelection) -> tuple[list[_Block], int, int]:
    """The blocks in their places, and the (width, height) they take together."""
    aspect = image.width / image.height
    tiled = selection.partitions > 1
    least = 64 / min(image.size)
    longest = 3200 / max(image.size)

    def scaled(width: float, height: float) -> float:
        return min(max(min(width / image.width, height / image.height), least), longest)

    if aspect >= _WIDE:
        big = scaled(1528, 1200)
        wide = round(image.width * big) + _gap(image, big) * max(0, selection.grid[1] - 1)
        paired = aspect < 6 and selection.content is not None
        small = (wide - _SPACE) / 2 / image.width if paired else big
        full, rest = _blocks(image, selection, small, big)
        rows = [[*rest[:1]], [full, *rest[1:]]] if tiled and paired else [[b] for b in (full, *rest)]
        y = 0
        for row in rows:
            x = 0
            for block in row:
                block.x, block.y = x, y
                x += block.width + _SPACE
            y += max(block.height for block in row) + _SPACE
    elif aspect < _TALL or not tiled:
        big = scaled(760, 1100) if tiled else scaled(740, 900)
        full, rest = _blocks(image, selection, big, big)
        x = 0
        for block in (full, *rest):
            block.x = x
            x += block.width + _SPACE
    else:
        big = scaled(1040, 900)
        tall = round(image.height * big) + _gap(image, big) * (selection.grid[0] - 1)
        height = (tall - _title_height() - _SPACE) / 2 if selection.content is not None else tall * 0.55
        full, rest = _blocks(image, selection, height / image.height, big)
        mosaic = rest[0]
        column = [full, *rest[1:]]
        y = 0
        for block in column:
            block.y = y
            y += block.height + _SPACE
        mosaic.x = max(block.width for block in column) + _SPACE
    blocks = [full, *rest]
    return blocks, max(b.x + b.width for b in blocks), max(b.y + b.height for b in blocks)


def _blocks(image: Image.Image, selection: ImageSelection, small: float, big: float) -> tuple[_Block, list[_Block]]:
    """The full image's block, and the others: tiles first, then heat map. Scales in panel pixels each
    picture pixel: `big` for the tiles, `small` for the rest."""
    real = [(t.partition, t.box) for t in selection.real_tokens if t.partition is not None and t.box]
    kept = [(t.partition, t.box) for t in selection.tokens if t.partition is not None and t.box]
    of = Counter(partition for partition, _ in real)
    have = Counter(partition for partition, _ in kept)
    words = {i: (f"{have[i]:,} of {of[i]:,}", f"{have[i]:,}") for i in of}
    whole = {0: (selection.boxes[0], 0, 0)}
    panel = token_panel(image, small, whole, real, kept, 0, PAPER)
    full = _Block("full image", panel, {0: words[0]} if 0 in words else {})
    if selection.partitions == 1:
        plain = _size(image, small)
        bare = Panel(image.resize(plain, Image.Resampling.LANCZOS), {}, np.zeros(plain[::-1], dtype=bool))
        full.title = "what the model is given"
        return _Block("picture", bare), [full]
    rows, columns = selection.grid
    places = {i: (box, (i - 1) // columns, (i - 1) % columns) for i, box in enumerate(selection.boxes) if i > 0}
    mosaic = token_panel(image, big, places, real, kept, _gap(image, big), PAPER)
    rest = [_Block(f"tiles, {rows} x {columns}", mosaic, {i: w for i, w in words.items() if i > 0})]
    if selection.content is not None:
        content = np.asarray(selection.content.detach().float().cpu().numpy(), dtype=np.float64)
        boxes = {i: place[0] for i, place in places.items()}
        shares = _shares(content, boxes, image.size)
        labels = {i: (f"{share:.0%}".replace("%", " %"),) * 2 for i, share in shares.items()}
        heat = heat_panel(image, small, content, boxes)
        rest.append(_Block("attention, initial layer", heat, labels))
    return full, rest


def _shares(content: NDArray[np.float64], boxes: Mapping[int, Box], size: tuple[int, int]) -> dict[int, float]:
    """The share of `content` (h, w), spread over a picture of `size`, that each box covers."""
    height, width = content.shape
    edges_x = np.arange(width + 1) * size[0] / width
    edges_y = np.arange(height + 1) * size[1] / height
    masses: dict[int, float] = {}
    for index, (x0, y0, x1, y1) in boxes.items():
        over_x = np.clip(np.minimum(edges_x[1:], x1) - np.maximum(edges_x[:-1], x0), 0, None)
        over_y = np.clip(np.minimum(edges_y[1:], y1) - np.maximum(edges_y[:-1], y0), 0, None)
        masses[index] = float(over_y @ content @ over_x)
    total = sum(masses.values())
    return {index: mass / total if total > 0 else 0.0 for index, mass in masses.items()}


def _composed(blocks: list[_Block], size: tuple[int, int], selection: ImageSelection, note: str | None) -> Image.Image:
    """Paste the blocks under the caption, write the labels."""
    caption, share = _caption(selection)
    keys = _keys(blocks, selection)
    keys_width = sum(24 + 8 + text_width(name, _TITLE) for name, _ in keys) + 24 * max(0, len(keys) - 1)
    share_width = text_width(share, _TITLE)
    width = max(size[0], text_width(caption, _HEAD), keys_width, share_width)
    share_right = text_width(caption, _HEAD) + 24 + share_width <= width
    keys_right = share_right and text_width(caption, _HEAD) + 48 + share_width + keys_width <= width
    head = text_height(_HEAD) + 18
    lines = head + (0 if share_right else 32) + (44 if note else 0) + (0 if keys_right or not keys else 46)
    figure = Image.new("RGB", (width + 2 * _MARGIN, lines + size[1] + 2 * _MARGIN - 4), PAPER)
    pen = ImageDraw.Draw(figure)
    x, y = _MARGIN, _MARGIN - 10
    text(pen, (x, y), caption, _HEAD, INK)
    base = y + round((_HEAD - _TITLE) * 0.95)
    if share_right:
        text(pen, (x + text_width(caption, _HEAD) + 24, base), share, _TITLE, FAINT)
    y += head
    if not share_right:
        text(pen, (x, y - 4), share, _TITLE, FAINT)
        y += 32
    if keys_right:
        _draw_keys(figure, pen, (_MARGIN + width - keys_width, base), keys)
    elif keys:
        _draw_keys(figure, pen, (x, y - 4), keys)
        y += 46
    if note:
        text(pen, (x, y - 6), fitted(" ".join(note.split()), 26, width), 26, INK)
        y += 44
    for block in blocks:
        left, top = _MARGIN + block.x, y + block.y
        text(pen, (left, top), block.title, _TITLE, FAINT)
        figure.paste(block.panel.image, (left, top + _title_height()))
        _label(figure, pen, block, (left, top + _title_height()))
    return figure


def _label(figure: Image.Image, pen: ImageDraw.ImageDraw, block: _Block, at: tuple[int, int]) -> None:
    """Write each partition's share on it, in the corner that hides least, or beside or below it."""
    if block.side:
        for index, (long, _) in block.labels.items():
            if index in block.panel.frames:
                _, y0, _, y1 = block.panel.frames[index]
                middle = at[1] + (y0 + y1) // 2 - text_height(_TITLE) // 2
                text(pen, (at[0] + block.panel.image.width + 12, middle), long, _TITLE, INK)
        return
    if block.foot:
        for index, words in block.labels.items():
            if index in block.panel.frames:
                x0, _, x1, _ = block.panel.frames[index]
                short = text_width(words[0], _TITLE) > x1 - x0
                text(pen, (at[0] + x0, at[1] + block.panel.image.height + 4), words[short], _TITLE, INK)
        return
    size = _chip_font(block)
    brief = not _fits(block, size, 0)
    for index, words in block.labels.items():
        if index in block.panel.frames:
            plate = chip_size(words[brief], size)
            x, y = quietest(block.panel.kept, block.panel.frames[index], plate, 7)
            chip(figure, (at[0] + x, at[1] + y), words[brief], size)


def _chip_font(block: _Block) -> int:
    """One font size, in pixels, for all chips of a block."""
    frames = [block.panel.frames[i] for i in block.labels if i in block.panel.frames]
    least = min((min((x1 - x0) / 7, (y1 - y0) / 4) for x0, y0, x1, y1 in frames), default=14)
    return int(min(max(least, 14), 24))


def _fits(block: _Block, size: int, which: int) -> bool:
    """Whether every label, long (0) or short (1), fits on its partition."""
    for index, words in block.labels.items():
        if index in block.panel.frames:
            x0, y0, x1, y1 = block.panel.frames[index]
            wide, high = chip_size(words[which], size)
            if wide + 14 > x1 - x0 or high + 14 > y1 - y0:
                return False
    return True


def _outside(block: _Block) -> bool:
    """Whether the labels must stand beside the panel: partitions too small, or a tall strip, and one column."""
    columns = {block.panel.frames[i][0] for i in block.labels if i in block.panel.frames}
    if len(columns) != 1 or _below(block):
        return False
    return block.panel.image.width * _WIDE <= block.panel.image.height or not _fits(block, _chip_font(block), 0)


def _below(block: _Block) -> bool:
    """Whether the labels must stand below the panel: a wide strip, in which a plate hides a line, and one row."""
    frames = [block.panel.frames[i] for i in block.labels if i in block.panel.frames]
    if len({top for _, top, _, _ in frames}) != 1 or block.panel.image.width < _WIDE * block.panel.image.height:
        return False
    short = zip(frames, (block.labels[i][1] for i in block.labels if i in block.panel.frames), strict=True)
    return all(text_width(words, _TITLE) <= x1 - x0 for (x0, _, x1, _), words in short)


def _caption(selection: ImageSelection) -> tuple[str, str]:
    """The headline, and what share of the patch tokens is kept."""
    before, after = selection.tokens_full, selection.tokens_kept
    if after >= before:
        return f"{before:,} visual tokens", "all kept"
    share = 100 * sum(selection.per_partition) / selection.tokens_real
    return (
        f"{before:,} {ARROW} {after:,} visual tokens",
        f"{share:.3g} % of {selection.tokens_real:,} patch tokens",
    )


def _keys(blocks: list[_Block], selection: ImageSelection) -> list[tuple[str, str]]:
    """(words, kind) of the colour keys the figure needs."""
    keys: list[tuple[str, str]] = []
    if selection.tokens_kept < selection.tokens_full:
        keys += [("kept", "kept"), ("dropped", "dropped")]
    if any(block.title.startswith("attention") for block in blocks):
        keys.append(("attention, low to high", "heat"))
    return keys


def _draw_keys(figure: Image.Image, pen: ImageDraw.ImageDraw, at: tuple[int, int], keys: list[tuple[str, str]]) -> None:
    """Swatches of 24 pixels, each with its words."""
    x, y = at
    for words, kind in keys:
        box = (x, y + 2, x + 23, y + 25)
        if kind == "heat":
            ramp = np.tile(colours(np.linspace(0, 1, 24)), (24, 1, 1))
            figure.paste(Image.fromarray(ramp.astype(np.uint8)), box[:2])
        elif kind == "kept":
            pen.rectangle(box, fill=(255, 255, 255), outline=ACCENT, width=2)
        else:
            pen.rectangle(box, fill=tuple(round(VEIL_SHARE * v + (1 - VEIL_SHARE) * 235) for v in VEIL))
        text(pen, (x + 32, y), words, _TITLE, FAINT)
        x += 32 + text_width(words, _TITLE) + 24


def _gap(image: Image.Image, scale: float) -> int:
    """Panel pixels between neighbouring tiles."""
    return min(max(6, round(0.012 * max(image.size) * scale)), 16)


def _title_height() -> int:
    return text_height(_TITLE) + 6


def _size(image: Image.Image, scale: float) -> tuple[int, int]:
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))
