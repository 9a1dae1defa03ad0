"""Pictures with one question each, from the seeds set aside for measuring."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

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
        ink: Boxes (x0, y0, x1, y1), in pixels, of everything written on the page.
    """

    seed: int
    image: Image.Image
    question: str
    answer: str
    ink: tuple[tuple[float, float, float, float], ...]


def samples(settings: Settings) -> list[Sample]:
    """The first `settings.limit` pages of `hired.forms.EVAL_SEEDS` that show a value, small ones first.

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
        if page.fields:
            asked = seed % len(page.fields)
            ink = tuple(field.box for field in page.fields)
            found.append(Sample(seed, page.image, page.question(asked), page.fields[asked].value, ink))
    # Pictures of about one size go together: less padding in a batch.
    return sorted(found, key=lambda sample: (sample.image.width * sample.image.height, sample.seed))
