"""What a page consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from PIL import Image

from hired.forms.geometry import Box

Task = Literal["forms", "dense", "large", "shapes", "layout", "mixed"]
FontSet = Literal["train", "unseen"]

TASKS: tuple[Task, ...] = ("forms", "dense", "large", "shapes", "layout", "mixed")
KEYS: tuple[str, ...] = (
    "TOTAL",
    "TAX",
    "TIP",
    "NET",
    "SUM",
    "QTY",
    "FEE",
    "DUE",
    "PIN",
    "BOX",
    "LOT",
    "BAY",
    "ROOM",
    "GATE",
    "SEAT",
    "ROW",
    "BUS",
    "UNIT",
    "ITEM",
    "CODE",
    "CASH",
    "PAID",
    "BILL",
    "CARD",
)
"""Every label that can stand on a page. A page never shows the same one twice."""
TITLES: tuple[str, ...] = ("MENU", "NOTICE", "REPORT", "TICKET", "RECEIPT", "INVOICE")
"""Every title."""
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "heart")
"""Every shape that questions ask about."""
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 30, 35),
    "green": (40, 150, 60),
    "blue": (40, 80, 205),
    "yellow": (242, 215, 45),
    "orange": (242, 130, 25),
    "purple": (140, 55, 170),
    "black": (22, 22, 24),
    "white": (250, 250, 250),
}
"""Every colour that a shape can have."""


@dataclass(frozen=True)
class Field:
    """One labelled value on a page. Boxes are (x0, y0, x1, y1) in pixels of the page.

    Attributes:
        key: The label, one of `KEYS`.
        value: The digits, as a string.
        box: The whole line.
        digits: One box for each digit of the value.
    """

    key: str
    value: str
    box: Box
    digits: tuple[Box, ...]


@dataclass(frozen=True)
class Thing:
    """Anything else on a page that questions ask about.

    Attributes:
        name: One of `SHAPES`, `TITLES` or `KEYS` (a label without a value).
        box: Where it lies, in pixels of the page.
        colour: One of `COLOURS` for a shape, empty for words.
    """

    name: str
    box: Box
    colour: str = ""


class Question(NamedTuple):
    """A question about a page.

    Attributes:
        text: What is asked.
        answer: The only right answer: digits or a word or two.
        boxes: What has to be seen to answer, in pixels of the page.
    """

    text: str
    answer: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Page:
    """A drawn page and what is on it.

    Attributes:
        image: The picture, RGB.
        fields: The labelled values, in the order they were placed, not reading order.
        seed: The seed it was drawn from.
        things: Shapes, a title, labels without a value.
        questions: Every question that can be asked about the page.
    """

    image: Image.Image
    fields: tuple[Field, ...]
    seed: int
    things: tuple[Thing, ...] = ()
    questions: tuple[Question, ...] = ()

    @property
    def ink(self) -> tuple[Box, ...]:
        """Boxes of everything on the page that a question may ask about."""
        return (*(field.box for field in self.fields), *(thing.box for thing in self.things))

    def question(self, i: int = 0) -> str:
        """The question whose answer is ``fields[i].value``."""
        return f"What is {self.fields[i].key}?"


def field_questions(fields: tuple[Field, ...] | list[Field]) -> tuple[Question, ...]:
    """What each labelled value is."""
    return tuple(Question(f"What is {f.key}?", f.value, (f.box,)) for f in fields)
