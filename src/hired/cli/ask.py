"""``hired ask``: stream an answer, then say what it cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hired import files, images
from hired.cli import output, waiting
from hired.cli.answering import Answer, How, answer, costs, pictures_of
from hired.errors import HiredError, ImageError
from hired.loading import Loaded
from hired.machine import LLAMA, peak_memory_mb, versions
from hired.pdf import DPI, check_dpi

__all__ = ["MOST_PICTURES", "Settings", "read", "report", "run"]

MOST_PICTURES = 100
"""Pictures, and pages, of one question: all of them are decoded at a time."""


@dataclass(frozen=True)
class Settings:
    """The options of ``hired ask``; see ``hired ask --help``."""

    pictures: tuple[str, ...]
    question: str
    model: str = "tiny"
    device: str = "auto"
    dtype: str = "auto"
    load: str | None = None
    gguf: Path | None = None
    trust_remote_code: bool = False
    how: How = field(default_factory=How)
    dpi: float = DPI
    view: Path | None = None
    chat: bool = False
    compare: bool = False
    as_json: bool = False

    def check(self) -> None:
        """Raise `HiredError` for settings that cannot be, before anything is read."""
        for given, option, other, wanted in (
            (self.chat, "--chat", "--json", self.as_json),
            (self.chat, "--chat", "--compare", self.compare),
            (self.compare, "--compare", "--view", self.view is not None),
            (self.gguf is not None, "--gguf", "--load", self.load is not None),
        ):
            if given and wanted:
                raise HiredError(f"{option} cannot be combined with {other}: leave one of them out")
        if self.chat and "-" in self.pictures:
            raise HiredError("--chat reads questions from standard input, which cannot give a picture too: name a file")
        check_dpi(self.dpi)
        self.how.check(self.question)


def read(words: Sequence[str], dpi: float = DPI) -> tuple[list[str], list[Any]]:
    """All pictures that are named, pages of PDFs among them, decoded.

    Args:
        words: As in `hired.images.each`.
        dpi: Of pages, pixels an inch.

    Returns:
        Their names, and the pictures, RGB.

    Raises:
        HiredError: One of them cannot be had, or they are more than `MOST_PICTURES`.
    """
    found: list[images.Picture] = []
    for word in words:
        found += images.each(word, dpi)
        if len(found) > MOST_PICTURES:
            raise ImageError(
                f"{len(found):,} pictures and pages for one question: at most {MOST_PICTURES} are read; choose pages"
                " as in file.pdf#1-20, or ask of each with hired batch"
            )
    return [picture.name for picture in found], [picture.load() for picture in found]


def run(settings: Settings) -> None:
    """Print the answer and what it cost, or one JSON object; draw the view where asked for.

    Raises:
        HiredError: The pictures, the model or the settings will not do, or the view cannot be written.
    """
    settings.check()
    _check_view(settings, settings.view)
    names, pictures = read(settings.pictures, settings.dpi)
    views = _views(settings.view, len(pictures))
    if len(views) > 1:
        for path in views:
            _check_view(settings, path)
    loaded = _load(settings)
    settings.how.check_for(loaded.processor, settings.question)
    if settings.compare:
        from hired.cli.compare import compare

        compare(loaded, names, pictures, settings)
        return
    result = answer(loaded, pictures, settings.question, settings.how, echo=not settings.as_json)
    memory = peak_memory_mb(loaded.kind)
    output.deliver(
        lambda: _print(settings, names, result, memory),
        *(partial(_draw, pictures[i], settings, result, i, path) for i, path in enumerate(views)),
    )
    if settings.chat:
        from hired.cli.chat import chat

        chat(loaded, result, settings.how)


def _load(settings: Settings) -> Loaded:
    """The model, its language model from a GGUF file where one is named."""
    common = settings.device, settings.dtype, settings.trust_remote_code
    if settings.gguf is None:
        return waiting.load(settings.model, *common, settings.load)
    return waiting.load_file(settings.model, settings.gguf, *common, words=settings.how.reads_question)


def report(settings: Settings, names: Sequence[str], result: Answer, memory: float | None) -> dict[str, Any]:
    """What ``--json`` prints.

    Args:
        settings: What was asked for.
        names: Of the pictures.
        result: What came of it.
        memory: Peak, MB.
    """
    return {
        "answer": result.text,
        "model": settings.model,
        **({} if settings.gguf is None else {"gguf": str(settings.gguf)}),
        "budget": settings.how.budget,
        "images": pictures_of(result, names),
        "prompt_tokens": result.prompt_tokens,
        "timings_ms": result.timings_ms,
        "peak_memory_mb": memory,
        "versions": versions() if settings.gguf is None else versions(*LLAMA),
    }


def _check_view(settings: Settings, path: Path | None) -> None:
    """Try a picture to write, against every one that is read."""
    if path is not None:
        for word in settings.pictures:
            files.check_picture_path(path, images.file_of(word))


def _views(path: Path | None, count: int) -> list[Path]:
    """A file for each picture: the one that was named, with a number before its suffix where there are several."""
    if path is None:
        return []
    return [path] if count == 1 else [path.with_stem(f"{path.stem}-{i}") for i in range(1, count + 1)]


def _draw(picture: Any, settings: Settings, result: Answer, index: int, path: Path) -> None:
    """Write a picture with what was kept of it, the question and the answer."""
    from hired.viz import draw

    note = f"{settings.question}  {result.text}"
    files.save_picture(draw(picture, result.selections[index], note=note), path)


def _print(settings: Settings, names: Sequence[str], result: Answer, memory: float | None) -> None:
    """One JSON object, or the line of costs below the answer."""
    if settings.as_json:
        print(json.dumps(report(settings, names, result, memory)))
    else:
        output.faint(costs(result, memory))
