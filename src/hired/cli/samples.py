"""What ``hired tune`` asks about: pictures from files, folders, URLs and lists, each with its questions."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hired import files, images
from hired.agreeing.samples import QUESTIONS, Sample, samples_of
from hired.cli.batch import found_in
from hired.errors import HiredError, InputsError
from hired.questions import check_text

__all__ = ["questions_in", "read"]

_LIST = ".jsonl"


def questions_in(path: Path | None, given: Sequence[str]) -> tuple[str, ...]:
    """What to ask of pictures that come without a question.

    Args:
        path: A text file of one question a line, or None.
        given: Questions; with neither, the standard ones are asked.

    Raises:
        HiredError: The file cannot be read or holds none.
    """
    asked = list(given)
    if path is not None:
        with files.told(path, "read"):
            lines = path.read_text(encoding="utf-8").splitlines()
        asked += [line.strip() for line in lines if line.strip()]
        if not asked:
            raise HiredError(f"{files.one_line(path)} holds no questions: write one a line")
    for question in asked:
        check_text(question)
    return tuple(dict.fromkeys(asked)) or QUESTIONS


def read(words: Sequence[str], questions: Sequence[str], limit: int | None, dpi: float) -> list[Sample]:
    """The samples, of at most `limit` pictures, all of which were decoded once.

    Which pictures of many are taken is drawn, but the same each time; a larger limit takes the same ones and more.

    Args:
        words: Files, folders, URLs, and lists (``.jsonl``) of objects with `image` (relative to the list), and maybe
            `question` and `answer`.
        questions: Asked where a list has none.
        limit: Pictures at most; None for all.
        dpi: Pixels an inch that pages of PDFs are drawn with.

    Raises:
        HiredError: What is named cannot be read.
    """
    if "-" in words:
        raise HiredError("a picture on standard input has no name to go on by: name a file")
    lists = [word for word in words if word.lower().endswith(_LIST) and not os.path.isdir(word)]
    entries = [entry for word in lists for entry in _listed(Path(word), questions)]
    plain = [word for word in words if word not in lists]
    entries += [(name, question, None) for name in (found_in(plain) if plain else []) for question in questions]
    names = list(dict.fromkeys(name for name, _, _ in entries))
    pages = {name: images.each(name, dpi) if _pdf(name) else None for name in names}
    order = [(name, place) for name in names for place in range(len(pages[name] or (None,)))]
    random.Random(0).shuffle(order)
    chosen = set(order[:limit])
    opened = {(name, place): (pages[name] or images.each(name, dpi))[place] for name, place in sorted(chosen)}
    for picture in opened.values():
        picture.load()
    found = [
        (opened[name, place], question, answer)
        for name, question, answer in entries
        for place in range(len(pages[name] or (None,)))
        if (name, place) in chosen
    ]
    made = samples_of(found)
    asked = [Sample(each.image, each.question, each.answers, _name(each)) for each in made]
    return list({(sample.name, sample.question): sample for sample in asked}.values())


def _name(sample: Sample) -> str:
    return sample.image.name if isinstance(sample.image, images.Picture) else sample.name


def _pdf(name: str) -> bool:
    return not images.is_url(name) and images.file_of(name).lower().endswith(".pdf")


def _listed(path: Path, questions: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """(picture, question, answer) of every line of a list."""
    with files.told(path, "read"):
        lines = path.read_text(encoding="utf-8").splitlines()
    empty = True
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        where = f"{files.one_line(path)}, line {number:,}"
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not entry["image"]:
            raise InputsError(f'{where}: write an object with "image", such as {{"image": "a.png", "question": "..."}}')
        question, answer, empty = entry.get("question"), entry.get("answer"), False
        texts = answer if isinstance(answer, list) else [answer]
        if not (question is None or (isinstance(question, str) and question.strip())):
            raise InputsError(f"{where}: question must be a text")
        if answer is not None and not all(isinstance(text, str) for text in texts):
            raise InputsError(f"{where}: answer must be a text or a list of texts")
        name = entry["image"]
        if not images.is_url(name):
            name = os.path.join(path.parent, name)
        for each in (question,) if question is not None else questions:
            check_text(each, f"question in line {number:,}")
            yield name, each, answer
    if empty:
        raise HiredError(f"{files.one_line(path)} holds no pictures")
