"""Answers in a file of JSON lines, one a line, that is gone on with where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from hired import files
from hired.errors import HiredError

__all__ = ["Records"]

_BEGIN = '{"picture": '


class Records:
    """The lines of a file.

    A line is an object with `picture`, `question`, `settings`, and `answer` or `error`.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], of: str = "hired batch") -> None:
        """Read what is there.

        Args:
            path: The file, which need not be there.
            settings: What answers depend on; those that are there must have been made with the same.
            of: The command whose answers these are.

        Raises:
            HiredError: The file cannot be written, holds something else, or answers under other settings.
        """
        self.path, self.settings, self.of = path, dict(settings), of
        if path.suffix.lower() != ".jsonl" or (path.exists() and not path.is_file()):
            raise HiredError(f"cannot write {files.one_line(path)}: name a .jsonl file")
        files.check_writable(path)
        text = _text(path, of)
        self._whole = text.endswith("\n") or not text
        self._lines = [line for line in text.split("\n") if line.strip()]
        self._kept: list[str] = []
        self._done: dict[tuple[str, str], dict[str, Any]] = {}
        for number, line in enumerate(self._lines, 1):
            self._read(line, number)

    def _read(self, line: str, number: int) -> None:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
            torn = number == len(self._lines) and (line.startswith(_BEGIN) or _BEGIN.startswith(line))
            if torn:  # by an end in the middle of it
                return
        if not isinstance(found, dict) or not {"picture", "question", "settings"} <= found.keys():
            raise HiredError(f"{files.one_line(self.path)} holds no answers of {self.of} (line {number:,})")
        if found["settings"] != self.settings:
            told = found["settings"] if isinstance(found["settings"], dict) else {}
            name = next((key for key, value in self.settings.items() if told.get(key) != value), "settings")
            raise HiredError(
                f"{files.one_line(self.path)} holds answers with {name} {told.get(name)!r:.80} in place of"
                f" {self.settings.get(name)!r:.80} (line {number:,}): name another file"
            )
        if "answer" in found:
            self._kept.append(line)
            self._done[str(found["picture"]), str(found["question"])] = found

    @property
    def count(self) -> int:
        """Answers that were there."""
        return len(self._kept)

    def has(self, picture: str, question: str) -> bool:
        """Whether the answer is there; an error is not one."""
        return (picture, question) in self._done

    def get(self, picture: str, question: str) -> dict[str, Any] | None:
        """The line of an answer, None where there is none."""
        return self._done.get((picture, question))

    @contextmanager
    def open(self) -> Iterator[TextIO]:
        """The file, to `add` to: without lines that hold errors or are torn, which are tried again.

        Raises:
            HiredError: It cannot be written.
        """
        if self._kept != self._lines or not self._whole:
            files.write(self.path, "".join(f"{line}\n" for line in self._kept).encode())
        with files.told(self.path):
            file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115  # closed below, where errors are others
        try:
            yield file
        finally:
            with files.told(self.path):
                file.close()

    def add(self, file: TextIO, picture: str, question: str, **result: Any) -> None:
        """Write a line, and let go of it, so that nothing is lost by what comes later.

        Raises:
            HiredError: It cannot be written.
        """
        record = {"picture": picture, "question": question, **result, "settings": self.settings}
        with files.told(self.path):
            file.write(json.dumps(record) + "\n")
            file.flush()


def _text(path: Path, of: str) -> str:
    """What is in a file, nothing where there is none."""
    with files.told(path, "read"):
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except UnicodeDecodeError as error:
            raise HiredError(f"{files.one_line(path)} holds no answers of {of}") from error
