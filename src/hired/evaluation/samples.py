"""Pictures with one question each, from the seeds set aside for measuring."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from hired import forms
from hired.errors import MissingDependencyError
from hired.evaluation.settings import Settings

__all__ = ["Sample", "samples"]


@dataclass(frozen=True)
class Sample:
    """One picture, one question, its answer.

    Attributes:
        seed: The seed of the page.
        image: The picture, RGB.
        question: What is asked.
        answer: The only right answer.
        ink: Boxes (x0, y0, x1, y1), in pixels, of everything on the page that can be asked about.
    """

    seed: int
    image: Image.Image
    question: str
    answer: str
    ink: tuple[tuple[float, float, float, float], ...]


def samples(settings: Settings) -> list[Sample]:
    """The first `settings.limit` pages of `hired.forms.EVAL_SEEDS` with something to ask, small ones first.

    Raises:
        MissingDependencyError: matplotlib, whose fonts the pages are written with, is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependencyError(
            "the pages are written with matplotlib's fonts: pip install matplotlib, or install hired-vlm with its eval"
            " extra"
        )
    task: Any = settings.task
    fonts: Any = settings.fonts
    found: list[Sample] = []
    for seed in forms.EVAL_SEEDS:
        if len(found) == settings.limit:
            break
        page = forms.page(seed, task=task, fonts=fonts)
        if page.questions:
            question = _asked(page)
            found.append(Sample(seed, page.image, question.text, question.answer, page.ink))
    # Pictures of about one size go together: less padding in a batch.
    return sorted(found, key=lambda sample: (sample.image.width * sample.image.height, sample.seed))


def _asked(page: forms.Page) -> forms.Question:
    """One of a page's questions: first a kind of question is drawn, then one of that kind, so that kinds of which there
    are many on a page are not asked more often than the others. Values of mixed pages count twice."""
    kinds: dict[str, list[forms.Question]] = {}
    for question in page.questions:
        kinds.setdefault(" ".join(question.text.split()[:2]), []).append(question)
    if len(kinds) == 1:
        return page.questions[page.seed % len(page.questions)]
    rng = np.random.default_rng([page.seed, 1])
    names = list(kinds)
    if page.fields and len(kinds) > 2:
        names.append("What is")
    drawn = kinds[names[rng.integers(len(names))]]
    return drawn[rng.integers(len(drawn))]
