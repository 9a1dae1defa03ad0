"""A page being drawn: its background, what lies where, and how to find room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import ImageDraw

from hired.forms.backgrounds import background, worn
from hired.forms.geometry import TILE, Box, crosses, grid_mapping, shape
from hired.forms.marks import draw_shape
from hired.forms.parts import KEYS, Field, Page, Question, Thing
from hired.forms.small import ink_colour, line
from hired.forms.typefaces import Style, font

if TYPE_CHECKING:
    from numpy.random import Generator


class Canvas:
    """A page of a grid, on any background, that marks are added to.

    Attributes:
        fit: Tile pixels for a page pixel.
        shrunk: Pixels of the shrunk full image for a page pixel, (across, down).
    """

    def __init__(self, rng: Generator, grid: tuple[int, int], style: Style) -> None:
        self.rng, self.grid, self.style = rng, grid, style
        self.width, self.height = shape(rng, grid)
        self.fit, self.left, self.top = grid_mapping(self.width, self.height, grid)
        self.shrunk = (TILE / self.width, TILE / self.height)
        self.image, self.dark = background(rng, self.width, self.height)
        self.draw = ImageDraw.Draw(self.image)
        self.taken: list[Box] = []
        self.fields: list[Field] = []
        self.things: list[Thing] = []
        self.keys = [KEYS[i] for i in rng.permutation(len(KEYS))]

    def page(self, seed: int, questions: list[Question]) -> Page:
        """The finished page."""
        image = self.image
        if self.style.worn and self.rng.random() < self.style.worn:
            image = worn(self.rng, image, self.fit)
        return Page(image, tuple(self.fields), seed, tuple(self.things), tuple(questions))

    def border(self, axis: int) -> float:
        """A tile border in page pixels, across (0) or down (1); the page has one."""
        count = self.grid[1 - axis]
        at = TILE * int(self.rng.integers(1, count))
        return (at - (self.left, self.top)[axis]) / self.fit

    def free(self, box: Box, gap: float) -> bool:
        """Whether a box lies on the page, `gap` from everything on it."""
        gap /= self.fit
        if box[0] < gap or box[1] < gap or box[2] > self.width - gap or box[3] > self.height - gap:
            return False
        return not any(
            box[0] < t[2] + gap and t[0] < box[2] + gap and box[1] < t[3] + gap and t[1] < box[3] + gap
            for t in self.taken
        )

    def whole(self, box: Box) -> bool:
        """Whether no tile border cuts a box."""
        return not crosses(box, self.fit, self.left, self.top)

    def small(self) -> bool:
        """Adds a line of small print; whether there was room."""
        key = self.keys.pop()
        mapping = (self.fit, self.left, self.top)
        size = (self.width, self.height)
        field = line(self.rng, self.draw, key, self.style, size, mapping, self.taken, self.dark)
        if field is not None:
            self.fields.append(field)
            self.taken.append(field.box)
        return field is not None

    def text(self, words: str, box: Box, face: str, size: float, ink: tuple[int, ...] | None = None) -> None:
        """Writes words whose drawn pixels begin at a box's corner."""
        x0, y0, _, _ = font(face, size).getbbox(words)
        ink = ink or ink_colour(self.rng, self.dark)
        self.draw.text((round(box[0] - x0), round(box[1] - y0)), words, font=font(face, size), fill=ink)

    def face(self) -> str:
        """A typeface."""
        return self.style.files[self.rng.integers(len(self.style.files))]

    def mark(self, name: str, colour: str, box: Box) -> None:
        """Adds a shape."""
        draw_shape(self.rng, self.image, name, colour, box)
        self.things.append(Thing(name, box, colour))
        self.taken.append(box)

    def large(self) -> bool:
        """Adds large print whose digits a tile border cuts; whether there was room."""
        rng = self.rng
        ways = [way for way, count in (("row", self.grid[0]), ("column", self.grid[1])) if count > 1]
        if not ways:
            return False
        key = self.keys.pop()
        for _ in range(24):
            boxes = self._arranged(key, ways[rng.integers(len(ways))])
            if boxes is None:
                continue
            face, size, label, value, digits = boxes
            whole = tuple(f(b[i] for b in (label, *digits)) for i, f in enumerate((min, min, max, max)))
            if not self.free(whole, 2):  # type: ignore[arg-type]
                continue
            ink = ink_colour(rng, self.dark)
            self.text(key, label, face, size, ink)
            for digit, box in zip(value, digits, strict=True):
                self.text(digit, box, face, size, ink)
            self.fields.append(Field(key, value, whole, digits))  # type: ignore[arg-type]
            self.taken.append(whole)  # type: ignore[arg-type]
            return True
        return False

    def _arranged(self, key: str, way: str) -> tuple[str, float, Box, str, tuple[Box, ...]] | None:
        """Large print: (typeface, size, box of the key, value, boxes of the digits)."""
        rng, face = self.rng, self.face()
        size = round(12.5 / min(self.shrunk) * rng.uniform(1.0, 1.45))
        digits = 3 if rng.random() < 0.6 or way == "column" else 4
        value = str(rng.integers(10 ** (digits - 1), 10**digits))
        letters = font(face, size)

        def extent(words: str) -> tuple[float, float]:
            x0, y0, x1, y1 = letters.getbbox(words)
            return x1 - x0, y1 - y0

        key_w, key_h = extent(key)
        each = [extent(digit) for digit in value]
        step, tall = letters.getlength("8"), max(h for _, h in each)
        gap = 0.3 * tall
        share = rng.uniform(0.36, 0.64)
        if way == "row":
            beside = rng.random() < 0.4
            across = key_w + 2 * gap + step * digits if beside else max(key_w, step * digits)
            if across > self.width * 0.97:
                return None
            x = rng.uniform(0, self.width - across)
            y = self.border(1) - share * tall
            first = x + key_w + 2 * gap if beside else x
            label = (x, y + tall - key_h) if beside else (x, y - gap - key_h)
            starts = [(first + i * step + (step - w) / 2, y + tall - h) for i, (w, h) in enumerate(each)]
        else:
            down = key_h + (gap + tall) * digits
            if down > self.height * 0.97:
                return None
            y = rng.uniform(0, self.height - down)
            x = self.border(0) - share * step
            label = (x + step / 2 - key_w * rng.uniform(0.3, 0.7), y)
            starts = [
                (x + (step - w) / 2, y + key_h + gap + i * (gap + tall) + tall - h) for i, (w, h) in enumerate(each)
            ]
        drawn = tuple((a, b, a + w, b + h) for (a, b), (w, h) in zip(starts, each, strict=True))
        return face, size, (*label, label[0] + key_w, label[1] + key_h), value, drawn
