"""How like two answers are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

__all__ = ["correct", "similarity"]


def similarity(one: str, other: str) -> float:
    """1 minus the edit distance (V. I. Levenshtein, 1966) over the length of the longer text, in characters.

    1 for equal texts, two empty ones included; 0 for texts with nothing in common. Known from ANLS (Biten et al., ICCV
    2019, arXiv 1905.13648), without its lower-casing and its threshold.
    """
    if one == other:
        return 1.0
    short, long = sorted((one, other), key=len)
    codes = np.array([ord(letter) for letter in short], dtype=np.int64)
    place = np.arange(len(short) + 1)
    row = place.copy()
    for letter in long:
        new = row + 1  # the letter is left out
        new[1:] = np.minimum(new[1:], row[:-1] + (codes != ord(letter)))
        row = np.minimum.accumulate(new - place) + place  # letters of the short text are put in
    return 1.0 - int(row[-1]) / len(long)


def correct(answer: str, truths: Iterable[str]) -> bool:
    """Whether an answer is one of the right ones, but for letter case, runs of space and a full stop at the end."""
    return _plain(answer) in {_plain(truth) for truth in truths}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()
