"""Pages and questions as the token sequences the language model is trained on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from hired.forms import GRIDS, KEYS, Page, page, practice
from training.build import PREFACES, QUESTIONS
from training.data import Partition, partitions, token_labels
from training.recipes.base import TEXT, Recipe


@dataclass
class Sequence:
    """One prompt with its answers.

    Attributes:
        ids: Token ids, the placeholder once for every visual token.
        place: For each token the visual token it is, counted over all tokens of all partitions of `parts`; `NEWLINE`
            for a row end, `TEXT` for text.
        learn: Whether the token is part of an answer.
        positions: Position ids, increasing.
        digits: For each token of an answer (index of the key asked for, number of the digit; -1: the
            end).
        parts: The encoder inputs, with their labels.
    """

    ids: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    learn: list[bool] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    digits: list[tuple[int, int]] = field(default_factory=list)
    parts: list[Partition] = field(default_factory=list)


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
        asked: list[tuple[str, str]],
        *,
        preface: str = "",
        stretch: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> Sequence:
        """A conversation about one or more pages.

        Args:
            pages: The pictures, one after the other, at the start of the first question.
            asked: (question, answer) pairs.
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
            s.parts += partitions(p, self.recipe)
        learn = [False] * len(ids)
        for i, (question, answer) in enumerate(asked):
            ask = [*([self.user] if i else []), *self.encode(question), self.assistant]
            tell = [*self.encode(answer), self.end]
            ids += ask + tell
            learn += [False] * len(ask) + [True] * len(tell)
            key = next((i for i, k in enumerate(KEYS) if k in re.split(r"\W+", question.upper())), -1)
            s.digits += [(key, i) for i in range(len(tell) - 1)] + [(key, -1)]
        place += [TEXT] * (len(ids) - len(place))
        s.ids, s.place, s.learn = ids, place, learn
        steps = np.ones(len(ids), np.int64)
        if rng is not None and stretch > 0:
            wide = (rng.random(len(ids)) < rng.uniform(0, stretch)) & (np.array(place) != TEXT)
            steps += wide * rng.integers(1, 4, len(ids))
        s.positions = (np.cumsum(steps) - steps[0]).tolist()
        return s


def sample(rng: np.random.Generator, writer: Writer, stage: float) -> Sequence:
    """One training sequence; `stage` is how far training has come (the curriculum).

    0..1 in a first run; 1..2 in a run that goes on from another: first many lines on little paper, where telling
    them apart by their key is all there is to learn, then everything.
    """
    seed = int(rng.integers(10_000_000_000))
    small = [(1, 1), (1, 2), (2, 1)]
    pages: list[Page] = []
    if stage < 0.06:
        pages = [practice(seed, small[rng.integers(3)], 1)]
    elif stage < 0.16:
        pages = [practice(seed, small[rng.integers(3)], int(rng.integers(1, 4)))]
    elif 1.0 <= stage < 1.6 and rng.random() < 0.7:
        pages = [practice(seed, small[rng.integers(3)], int(rng.integers(2, 6)))]
    elif rng.random() < 0.4:
        grid = GRIDS[rng.choice(len(GRIDS), p=[0.06, 0.2, 0.2, 0.24, 0.1, 0.1, 0.05, 0.05])]
        most = min(4 * grid[0] * grid[1], 8) if stage > 0.35 else 1 + 2 * grid[0] * grid[1]
        pages = [practice(seed, grid, int(rng.integers(1, most + 1)))]
    else:
        pages = [page(seed)]
        if rng.random() < 0.06 and len(pages[0].fields) < 3:
            pages.append(practice(seed, small[rng.integers(3)], 2))
    fields = [f for p in pages for f in p.fields]
    names = [f.key for f in fields]
    fields = [f for f in fields if names.count(f.key) == 1]
    asked = []
    for i in rng.permutation(len(fields)):
        usual = rng.random() < 0.6
        form = QUESTIONS[0] if usual else QUESTIONS[rng.integers(len(QUESTIONS))]
        key = fields[i].key
        if not usual and rng.random() < 0.3:
            key = key.lower()
        asked.append((form.format(key), fields[i].value))
    preface = ""
    if stage > 0.1 and rng.random() < 0.4:
        preface = " ".join(PREFACES[i] for i in rng.permutation(len(PREFACES))[: rng.integers(1, 4)])
    return writer.write(pages, asked, preface=preface, stretch=0.5 * (rng.random() < 0.6), rng=rng)


def collate(items: list[Sequence], recipe: Recipe, pad: int) -> dict[str, np.ndarray]:
    """Right-padded batch; `tail` lists the positions that predict an answer token.

    `key` (partitions, tokens) and `slots` (partitions, 4, tokens) are labels of visual tokens.
    """
    labels = [token_labels(p, recipe.merge) for s in items for p in s.parts]
    length = max(len(s.ids) for s in items)
    shape = (len(items), length)
    out = {
        "ids": np.full(shape, pad, np.int64),
        "place": np.full(shape, TEXT, np.int64),
        "positions": np.zeros(shape, np.int64),
        "pixels": np.stack([p.pixels for s in items for p in s.parts]),
        "key": np.stack([key for key, _ in labels]),
        "slots": np.stack([slots for _, slots in labels]),
        "whole": np.array([p.whole for s in items for p in s.parts], np.float32),
    }
    longest = max(sum(s.learn) for s in items)
    tail = np.zeros((len(items), longest), np.int64)
    target = np.full((len(items), longest), -100, np.int64)
    line, digit = np.full_like(tail, -1), np.full_like(tail, -1)
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
        line[i, : len(where)] = [k for k, _ in s.digits]
        digit[i, : len(where)] = [d if k >= 0 else -1 for k, d in s.digits]
        offset += len(s.parts)
    out["line"], out["digit"] = line, digit
    out["tail"], out["target"] = tail, target
    return out


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
