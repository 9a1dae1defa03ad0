"""``hired batch``: the same questions about many pictures, answers in a file of JSON lines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from hired import files, images
from hired.cli import waiting
from hired.cli.answering import How, answer, pictures_of
from hired.cli.records import Records
from hired.download import without_password
from hired.errors import HiredError, ImageError, MissingDependencyError, UnsupportedModelError
from hired.loading import Loaded
from hired.pdf import DPI, check_dpi

__all__ = ["Settings", "found_in", "run"]

_MORE = {".pdf", ".heic", ".heif"}
"""Suffixes of pictures that are not Pillow's own."""
_THROUGH = (UnsupportedModelError, MissingDependencyError)
"""Errors that every picture would make."""


@dataclass(frozen=True)
class Settings:
    """The options of ``hired batch``; see ``hired batch --help``."""

    pictures: tuple[str, ...]
    questions: tuple[str, ...]
    out: Path
    model: str = "tiny"
    device: str = "auto"
    dtype: str = "auto"
    load: str | None = None
    trust_remote_code: bool = False
    how: How = field(default_factory=How)
    dpi: float = DPI

    def check(self) -> None:
        """Raise `HiredError` for settings that cannot be, before anything is read."""
        if "-" in self.pictures:
            raise HiredError("a picture on standard input has no name to keep its answer by: use hired ask, or a file")
        check_dpi(self.dpi)
        self.how.check(*self.questions)

    @property
    def asked(self) -> tuple[str, ...]:
        """Every question once."""
        return tuple(dict.fromkeys(self.questions))

    def decisive(self) -> dict[str, Any]:
        """What answers depend on."""
        return {
            "model": self.model,
            "dtype": self.dtype,
            "load": self.load,
            **asdict(self.how),
            "dpi": self.dpi,
        }


@dataclass
class _Counts:
    answers: int = 0
    failed: int = 0


def found_in(words: Sequence[str]) -> list[str]:
    """What is to be read: files and URLs as they are named, and the pictures in folders, in the order of their names.

    Args:
        words: As on the command line.

    Raises:
        HiredError: A folder that holds no picture.
    """
    Image.init()
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN} | _MORE
    found: list[str] = []
    for word in words:
        if not os.path.isdir(word):
            found.append(word)
            continue
        inside = []
        for folder, folders, names in os.walk(word):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside += [
                os.path.join(folder, name)
                for name in names
                if Path(name).suffix.lower() in suffixes and not name.startswith(".")
            ]
        if not inside:
            raise HiredError(f"{files.one_line(word)} holds no pictures")
        found += sorted(inside)
    return list(dict.fromkeys(found))


def run(settings: Settings) -> bool:
    """Ask, and write a line for every answer and every failure.

    Returns:
        Whether nothing failed.

    Raises:
        HiredError: The model or the settings will not do, or the file cannot be written; what is in it stays.
    """
    settings.check()
    records = Records(settings.out, settings.decisive())
    names = found_in(settings.pictures)
    counts = _Counts()
    todo = [name for name in names if not _done(settings, records, name)]
    if todo:
        loaded = waiting.load(
            settings.model, settings.device, settings.dtype, settings.trust_remote_code, settings.load
        )
        settings.how.check_for(loaded.processor, *settings.asked)
        with records.open() as file, waiting.bar("Files", len(names)) as advance:
            advance(len(names) - len(todo))
            for name in todo:
                _file(settings, loaded, records, file, name, counts)
                advance(1)
    parts = [
        f"{counts.answers:,} answer{'' if counts.answers == 1 else 's'}",
        f"{records.count:,} there before" if records.count else "",
    ]
    parts.append(f"{counts.failed:,} failed" if counts.failed else "")
    print(f"{files.one_line(settings.out)}: {', '.join(part for part in parts if part)}")
    return not counts.failed


def _done(settings: Settings, records: Records, name: str) -> bool:
    """Whether all answers about a file are there, so that it need not be read, and no model for it."""
    names = [without_password(name)]
    if records.count and not images.is_url(name) and images.file_of(name).lower().endswith(".pdf"):
        try:
            names = [picture.name for picture in images.each(name, settings.dpi)]
        except ImageError:
            return False  # told later, in its place
    return all(records.has(each, question) for each in names for question in settings.asked)


def _file(settings: Settings, loaded: Loaded, records: Records, file: TextIO, name: str, counts: _Counts) -> None:
    """All questions about what is in a file."""

    def failed(picture: str, error: HiredError, questions: Sequence[str] = settings.asked) -> None:
        for question in questions:
            records.add(file, picture, question, error=str(error))
            counts.failed += 1

    try:
        pictures = images.each(name, settings.dpi)
    except ImageError as error:
        failed(without_password(name), error)
        return
    for picture in pictures:
        left = [question for question in settings.asked if not records.has(picture.name, question)]
        if not left:
            continue
        try:
            image = picture.load()
        except ImageError as error:
            failed(picture.name, error, left)
            continue
        for question in left:
            try:
                records.add(file, picture.name, question, **_answered(loaded, image, question, settings.how))
                counts.answers += 1
            except _THROUGH:
                raise
            except HiredError as error:
                failed(picture.name, error, [question])


def _answered(loaded: Loaded, image: Image.Image, question: str, how: How) -> dict[str, Any]:
    """What the line of an answer says."""
    result = answer(loaded, [image], question, how)
    (told,) = pictures_of(result)
    return {
        "answer": result.text,
        "size": told["size"],
        "tokens_full": told["tokens_full"],
        "tokens_kept": told["tokens_kept"],
        "prompt_tokens": result.prompt_tokens,
        "timings_ms": result.timings_ms,
    }
