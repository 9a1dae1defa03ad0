"""Pages and questions as the token sequences the language model is trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from hired.forms import COLOURS, GRIDS, KEYS, SHAPES, TRAIN_SEEDS, Page, Question, Task, draw, practice
from training.build import PREFACES, QUESTIONS, VARIANTS
from training.data import Partition, partitions, token_labels, token_marks
from training.fonts import style
from training.recipes.base import TEXT, Recipe

TITLE = len(KEYS)
"""Number that `Asked.name` gives every title."""
KINDS = len(KEYS) + 1 + len(SHAPES)
"""What a question can name: a key, the title, a shape."""
LOOK = 4
"""The head of the last layer that ought to look at what a question without digits is about."""


@dataclass(frozen=True)
class Asked:
    """A question and what the lookup losses know of it.

    Attributes:
        text, answer: The question and its answer.
        name: Number of the key, title (`TITLE`) or shape that it names; -1: none.
        hue: Index into `COLOURS` of the colour it names; -1: none.
        look: Number of the mark that shows the answer, over all marks of the conversation's pages; -1: no one mark.
        digits: Whether the answer is read digit by digit off that mark.
        full: Whether the shrunk full image alone shows it: where on the page a thing lies, what lies beside it.
    """

    text: str
    answer: str
    name: int = -1
    hue: int = -1
    look: int = -1
    digits: bool = False
    full: bool = False


def asked_of(question: Question, pages: list[Page], text: str = "") -> Asked:
    """What a question of one of the pages names and looks at; `text`: other words for it."""
    ink = [box for p in pages for box in p.ink]
    counted = question.text.startswith("How many")
    # Of two things that lie beside each other, the one that the question names: its patches know their neighbours.
    look = ink.index(question.boxes[0]) if question.boxes and not counted else -1
    full = question.text.startswith("Where") or (len(question.boxes) == 2 and not counted)
    lines = [box for p in pages for box in [*(f.box for f in p.fields), *[None] * len(p.things)]]
    name, hue = named(question.text)
    digits = look >= 0 and lines[look] is not None
    return Asked(text or question.text, question.answer, name, hue, look, digits, full)


def named(question: str) -> tuple[int, int]:
    """(what, colour) that a question names, as `Asked` counts them."""
    words = re.split(r"\W+", question)
    shape = next((i for i, n in enumerate(SHAPES) if {n, n + "s", n + "es"} & set(words)), None)
    key = next((i for i, k in enumerate(KEYS) if k in [w.upper() for w in words]), -1)
    hue = next((i for i, c in enumerate(COLOURS) if c in words), -1)
    if shape is not None:
        return TITLE + 1 + shape, hue
    return (TITLE if "title" in words else key), hue


@dataclass
class Sequence:
    """One prompt with its answers.

    Attributes:
        ids: Token ids, the placeholder once for every visual token.
        place: For each token the visual token it is, counted over all tokens of all partitions of `parts`; `NEWLINE`
            for a row end, `TEXT` for text.
        learn: Whether the token is part of an answer.
        positions: Position ids, increasing.
        told: For each token of an answer what it answers, and the number of the token; -1: the end.
        parts: The encoder inputs, with their labels.
        marks: How many marks the pages have.
    """

    ids: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    learn: list[bool] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    told: list[tuple[Asked, int]] = field(default_factory=list)
    parts: list[Partition] = field(default_factory=list)
    marks: int = 0


class Writer:
    """Turns pages and questions into sequences."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.tok = recipe.tokenizer()
        get = self.tok.convert_tokens_to_ids
        self.bos, self.user, self.end = get("<s>"), get("<|user|>"), get("<|end|>")
        self.assistant = get("<|assistant|>")
        self.cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        if text not in self.cache:
            self.cache[text] = self.tok.encode(text, add_special_tokens=False)
        return self.cache[text]

    def write(
        self,
        pages: list[Page],
        asked: Iterable[Asked],
        *,
        preface: str = "",
        stretch: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> Sequence:
        """A conversation about one or more pages.

        Args:
            pages: The pictures, one after the other, at the start of the first question.
            asked: The questions.
            preface: Text before the pictures.
            stretch: Largest share of visual tokens that are followed by a gap in the positions.
            rng: Source of the gaps.
        """
        s = Sequence()
        ids = [self.bos, self.user, *(self.encode(preface) if preface else [])]
        place = [TEXT] * len(ids)
        for p in pages:
            shown, spots = self.recipe.picture(self.tok, *p.image.size)
            offset = len(s.parts) * len(self.recipe.merge)
            place += [v + offset if v >= 0 else v for v in spots]
            ids += shown
            for part in partitions(p, self.recipe):
                s.parts.append(replace(part, owner=np.where(part.owner >= 0, part.owner + s.marks, -1)))
            s.marks += len(p.ink)
        learn = [False] * len(ids)
        for i, q in enumerate(asked):
            ask = [*([self.user] if i else []), *self.encode(q.text), self.assistant]
            tell = [*self.encode(q.answer), self.end]
            ids += ask + tell
            learn += [False] * len(ask) + [True] * len(tell)
            s.told += [(q, n) for n in range(len(tell) - 1)] + [(q, -1)]
        place += [TEXT] * (len(ids) - len(place))
        s.ids, s.place, s.learn = ids, place, learn
        steps = np.ones(len(ids), np.int64)
        if rng is not None and stretch > 0:
            wide = (rng.random(len(ids)) < rng.uniform(0, stretch)) & (np.array(place) != TEXT)
            steps += wide * rng.integers(1, 4, len(ids))
        s.positions = (np.cumsum(steps) - steps[0]).tolist()
        return s


SHARES: dict[Task, float] = {
    "forms": 0.28,
    "dense": 0.04,
    "large": 0.24,
    "shapes": 0.1,
    "layout": 0.22,
    "mixed": 0.12,
}
"""How often pages of each task are asked about."""
MOST = 10
"""Questions about a page."""


def sample(rng: np.random.Generator, writer: Writer, stage: float) -> Sequence:
    """One training sequence; `stage` is how far training has come (the curriculum).

    0..1 in a first run, which begins with one line on one or two tiles; 1..2 in a run that goes on from another.
    """
    seed = int(rng.integers(len(TRAIN_SEEDS)))
    small = [(1, 1), (1, 2), (2, 1)]
    task = list(SHARES)[rng.choice(len(SHARES), p=list(SHARES.values()))]
    if stage < 0.06:
        pages = [practice(seed, small[rng.integers(3)], 1, style())]
    elif stage < 0.16:
        pages = [practice(seed, small[rng.integers(3)], int(rng.integers(1, 4)), style())]
    elif task == "forms" and rng.random() < 0.5:
        grid = GRIDS[rng.choice(len(GRIDS), p=[0.06, 0.2, 0.2, 0.24, 0.1, 0.1, 0.05, 0.05])]
        most = min(4 * grid[0] * grid[1], 8) if stage > 0.35 else 1 + 2 * grid[0] * grid[1]
        pages = [practice(seed, grid, int(rng.integers(1, most + 1)), style())]
    else:
        pages = [draw(seed, task, style())]
        if task == "forms" and rng.random() < 0.06 and len(pages[0].fields) < 3:
            pages.append(practice(seed, small[rng.integers(3)], 2, style()))
    names = [f.key for p in pages for f in p.fields]
    asked = []
    for question in [q for p in pages for q in p.questions]:
        name, hue = named(question.text)
        if hue < 0 and 0 <= name < TITLE:
            if names.count(KEYS[name]) == 1:
                asked.append(asked_of(question, pages, _reworded(rng, KEYS[name])))
        elif len(pages) == 1:
            asked.append(asked_of(question, pages, _varied(rng, question.text)))
    asked = _apart([asked[i] for i in rng.permutation(len(asked))])[:MOST]
    preface = ""
    if stage > 0.1 and rng.random() < 0.4:
        preface = " ".join(PREFACES[i] for i in rng.permutation(len(PREFACES))[: rng.integers(1, 4)])
    return writer.write(pages, asked, preface=preface, stretch=0.5 * (rng.random() < 0.6), rng=rng)


def _apart(asked: list[Asked]) -> list[Asked]:
    """Those questions whose answer no earlier one of the conversation tells: one about each mark."""
    kept: list[Asked] = []
    taken: set[object] = set()
    for q in asked:
        about = {("mark", q.look)} if q.look >= 0 else {("count", q.name)}
        if q.answer in SHAPES and q.name > TITLE:  # beside another shape: the other way round says the same
            about.add(("pair", frozenset((q.name, TITLE + 1 + SHAPES.index(q.answer)))))
        if not about & taken:
            kept.append(q)
            taken |= about
    return kept


def _reworded(rng: np.random.Generator, key: str) -> str:
    """A question for a value."""
    usual = rng.random() < 0.6
    form = QUESTIONS[0] if usual else QUESTIONS[rng.integers(len(QUESTIONS))]
    return form.format(key.lower() if not usual and rng.random() < 0.3 else key)


def _varied(rng: np.random.Generator, question: str) -> str:
    """A question about shapes or places, sometimes in other words."""
    if rng.random() < 0.75:
        return question
    for pattern, forms in VARIANTS.items():
        if re.fullmatch(pattern, question):
            return re.sub(pattern, forms[rng.integers(len(forms))], question)
    return question


def collate(items: list[Sequence], recipe: Recipe, pad: int) -> dict[str, np.ndarray]:
    """Right-padded batch; `tail` lists the positions that predict an answer token.

    `name`, `hue`, `owner` (partitions, tokens) and `slots` (partitions, 4, tokens) are labels of visual tokens; `what`,
    `colour`, `look`, `digit`, `first` and `full` tell of every position of `tail` what `Asked` does, the number of the
    digit that is due or -1, and whether an answer begins; `tile` whether a visual token is one of a tile.
    """
    labels = [token_labels(p, recipe.merge) for s in items for p in s.parts]
    marks = [token_marks(p, recipe.merge) for s in items for p in s.parts]
    begin = np.cumsum([0, *(s.marks for s in items)])
    owners = [np.where(m["owner"] >= 0, m["owner"] + begin[i], -1) for i, m in _by_item(items, marks)]
    length = max(len(s.ids) for s in items)
    shape = (len(items), length)
    out = {
        "ids": np.full(shape, pad, np.int64),
        "place": np.full(shape, TEXT, np.int64),
        "positions": np.zeros(shape, np.int64),
        "pixels": np.stack([p.pixels for s in items for p in s.parts]),
        "name": np.stack([_names(key, m["shape"]) for (key, _), m in zip(labels, marks, strict=True)]),
        "hue": np.stack([m["colour"] - 1 for m in marks]),
        "owner": np.stack(owners),
        "tile": np.stack([np.full(len(recipe.merge), p.whole > 0) for s in items for p in s.parts]),
        "slots": np.stack([slots for _, slots in labels]),
    }
    longest = max(sum(s.learn) for s in items)
    tail = np.zeros((len(items), longest), np.int64)
    target = np.full((len(items), longest), -100, np.int64)
    told = {name: np.full_like(tail, -1) for name in ("what", "colour", "look", "digit", "first", "full")}
    offset = 0
    for i, s in enumerate(items):
        n = len(s.ids)
        out["ids"][i, :n] = s.ids
        spots = np.array(s.place)
        out["place"][i, :n] = np.where(spots >= 0, spots + offset * len(recipe.merge), spots)
        out["positions"][i, :n] = s.positions
        where = np.flatnonzero(s.learn)
        tail[i, : len(where)] = where - 1
        target[i, : len(where)] = np.array(s.ids)[where]
        for j, (q, number) in enumerate(s.told):
            told["what"][i, j], told["colour"][i, j] = q.name, q.hue
            told["look"][i, j] = q.look + begin[i] if q.look >= 0 else -1
            told["digit"][i, j] = number if q.digits else -1
            told["first"][i, j], told["full"][i, j] = number == 0, q.full
        offset += len(s.parts)
    out["tail"], out["target"] = tail, target
    return out | told


def _by_item(items: list[Sequence], each: list[dict[str, np.ndarray]]) -> list[tuple[int, dict[str, np.ndarray]]]:
    """Labels of all partitions, with the number of the sequence that a partition belongs to."""
    numbers = [i for i, s in enumerate(items) for _ in s.parts]
    return list(zip(numbers, each, strict=True))


def _names(key: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """What each token shows, as `Asked.name` counts it; -1: nothing that has a name."""
    text = np.where(key >= len(KEYS), TITLE, key)
    return np.where(shape > 0, TITLE + shape, np.where(key >= 0, text, -1))


def batches(seed: int, writer: Writer, tokens: int, stage: object) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of sequences of like length, about `tokens` tokens each.

    `stage` has a `value` that the training loop moves from 0 to 1.
    """
    rng = np.random.default_rng([seed, 7])
    pad = writer.tok.pad_token_id
    while True:
        now = float(stage.value)  # type: ignore[attr-defined]
        items = [s for s in (sample(rng, writer, now) for _ in range(96)) if any(s.learn)]
        items.sort(key=lambda s: len(s.ids))
        groups: list[list[Sequence]] = [[]]
        for s in items:
            if groups[-1] and (len(groups[-1]) + 1) * len(s.ids) > tokens:
                groups.append([])
            groups[-1].append(s)
        for i in rng.permutation(len(groups)):
            if len(groups[i]) > 1:
                yield collate(groups[i], writer.recipe, pad)
