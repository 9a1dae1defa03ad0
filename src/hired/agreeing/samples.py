"""Pictures with questions. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from hired.errors import InputsError
from hired.images import Picture

__all__ = ["QUESTIONS", "Sample", "by_picture", "samples_of"]

QUESTIONS = (
    "What does this picture show? Answer in one short sentence.",
    "What is the largest text in this picture? Answer with the text, or none.",
    "Which numbers are written in this picture? Answer with the numbers, or none.",
    "What is in the lower right corner? Answer in a few words.",
)
"""Asked where nobody says what to ask: of the whole and of details, of photographs and of documents."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture, one question.

    Attributes:
        image: The picture, or how to have it.
        question: What is asked.
        answers: Every answer that is right; none where that is not known.
        name: Of the picture; samples of one name are of one picture, which is encoded once.
    """

    image: Image.Image | Picture
    question: str
    answers: tuple[str, ...] = ()
    name: str = ""

    def load(self) -> Image.Image:
        """The picture, RGB.

        Raises:
            ImageError: It cannot be decoded.
        """
        return self.image.load() if isinstance(self.image, Picture) else self.image.convert("RGB")


def samples_of(given: Iterable[Any]) -> list[Sample]:
    """What a caller gave as samples, named.

    Args:
        given: `Sample`s, or (image, question) or (image, question, answer) tuples, an answer being a text or several
            texts that are all right.

    Raises:
        InputsError: Something else, or nothing.
    """
    made: list[Sample] = []
    names: dict[int, str] = {}
    for place, each in enumerate(given):
        if not isinstance(each, Sample):
            if not isinstance(each, tuple | list) or not 2 <= len(each) <= 3:
                raise InputsError(
                    f"sample {place + 1} must be (image, question) or (image, question, answer), got"
                    f" {type(each).__name__}"
                )
            each = Sample(each[0], each[1], _answers(each[2], place) if len(each) == 3 else ())
        if not isinstance(each.image, Image.Image | Picture):
            raise InputsError(f"the image of sample {place + 1} must be a PIL picture, got {type(each.image).__name__}")
        if not isinstance(each.question, str) or not each.question.strip():
            raise InputsError(f"the question of sample {place + 1} must be a text, got {each.question!r:.80}")
        name = each.name or names.setdefault(id(each.image), f"picture {len(names) + 1}")
        made.append(Sample(each.image, each.question, each.answers, name))
    if not made:
        raise InputsError("there are no samples: give one or more (image, question)")
    return made


def _answers(given: Any, place: int) -> tuple[str, ...]:
    """The right answers of a sample; None is none."""
    found = () if given is None else (given,) if isinstance(given, str) else given
    if not isinstance(found, Sequence) or not all(isinstance(answer, str) for answer in found):
        raise InputsError(f"the answer of sample {place + 1} must be a text or a list of texts, got {given!r:.80}")
    return tuple(found)


def by_picture(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """The samples of every picture, in the order in which pictures first come."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.name, []).append(sample)
    return found
