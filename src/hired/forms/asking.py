"""Questions about shapes and places; only those with one right answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hired.forms.parts import COLOURS, SHAPES, Question, Thing

if TYPE_CHECKING:
    from hired.forms.canvas import Canvas

_ROWS = ("top", "", "bottom")
_COLUMNS = ("left", "", "right")
_MARGIN = 0.05
"""How far from the border between two thirds of a page a thing's centre has to lie, as a share of the page."""


def looks(things: Sequence[Thing]) -> list[Question]:
    """The colour of each shape, the shape of each colour, where there is one such."""
    shapes = [t for t in things if t.colour]
    names, colours = Counter(t.name for t in shapes), Counter(t.colour for t in shapes)
    found = [Question(f"What colour is the {t.name}?", t.colour, (t.box,)) for t in shapes if names[t.name] == 1]
    found += [Question(f"What shape is {t.colour}?", t.name, (t.box,)) for t in shapes if colours[t.colour] == 1]
    return found


def counts(things: Sequence[Thing]) -> list[Question]:
    """How many there are of each kind that is there, of one that is not, and of all."""
    shapes = [t for t in things if t.colour]
    found = []
    missing = [name for name in SHAPES if all(t.name != name for t in shapes)]
    # Deterministic without a draw: which absent shape is asked for depends on what is there.
    absent = missing[sum(list(COLOURS).index(t.colour) for t in shapes) % len(missing)] if missing else None
    for name in SHAPES:
        boxes = tuple(t.box for t in shapes if t.name == name)
        if boxes or name == absent:
            found.append(Question(f"How many {name}{'es' if name == 'cross' else 's'}?", str(len(boxes)), boxes))
    found.append(Question("How many shapes?", str(len(shapes)), tuple(t.box for t in shapes)))
    return found


def where(c: Canvas, things: Sequence[Thing]) -> list[Question]:
    """In which ninth of the page each shape lies that there is one of."""
    names = Counter(t.name for t in things)
    found = []
    for t in things:
        answer = place(c, t)
        if t.colour and names[t.name] == 1 and answer:
            found.append(Question(f"Where is the {t.name}?", answer, (t.box,)))
    return found


def place(c: Canvas, thing: Thing) -> str | None:
    """Words for the ninth of the page that a thing's centre lies in; None near a border between two."""
    x = (thing.box[0] + thing.box[2]) / 2 / c.width * 3
    y = (thing.box[1] + thing.box[3]) / 2 / c.height * 3
    if any(abs(v - border) < 3 * _MARGIN for v in (x, y) for border in (1, 2)):
        return None
    words = [_ROWS[int(y)], _COLUMNS[int(x)]]
    return " ".join(filter(None, words)) or "middle"


def places(c: Canvas, found: dict[tuple[int, int], Thing], title: Thing | None) -> list[Question]:
    """Where things are, and what lies beside, above and under them, on a lattice of three by three places."""
    questions = where(c, list(found.values()))
    for (row, column), thing in found.items():
        if not thing.colour:
            continue
        for words, cell in (
            ("left of", (row, column - 1)),
            ("right of", (row, column + 1)),
            ("above", (row - 1, column)),
            ("under", (row + 1, column)),
        ):
            other = found.get(cell)
            if other is not None:
                text = f"What is {words} the {thing.name}?"
                questions.append(Question(text, other.name, (thing.box, other.box)))
    if title is not None:
        questions.append(Question("What is the title?", title.name, (title.box,)))
        if (1, 1) in found:
            other = found[1, 1]
            questions.append(Question("What is under the title?", other.name, (title.box, other.box)))
    return questions
