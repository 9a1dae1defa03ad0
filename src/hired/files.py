"""What is written: results as JSON, pictures and plots, whole or not at all."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from hired.errors import HiredError, MissingDependencyError

__all__ = [
    "MATPLOTLIB",
    "check_apart",
    "check_picture_path",
    "check_results",
    "check_writable",
    "new_figure",
    "one_line",
    "save_picture",
    "scratch",
    "told",
    "whole",
    "write",
    "write_figure",
    "write_json",
]

MATPLOTLIB = "plots need matplotlib: pip install matplotlib, or install hired-vlm with its eval extra"
"""What to say where plots cannot be drawn."""


def check_picture_path(path: Path, source: str | None = None) -> None:
    """Raise `HiredError` where no picture can be written to `path`, before any work is done for it.

    Args:
        path: The picture to write.
        source: What is read, as in `hired.images.load`: it must not be written over.
    """
    name = one_line(path)
    kind = _kind(path)
    if kind is None:
        raise HiredError(f"cannot write {name}: name a picture file, such as {one_line(path.stem or 'out')}.png")
    try:
        _encoded(Image.new("RGB", (32, 32)), kind)
    except Exception as error:  # formats that are known by name only, or hold no colours
        raise HiredError(f"cannot write {name}: {kind} does not hold such pictures; use .png") from error
    check_writable(path)
    if source is not None:
        check_apart(path, [source])


def check_apart(path: Path, sources: Iterable[str], what: str = "the picture that is read") -> None:
    """Raise `HiredError` where a file to write is one of those that are read, through whatever links."""
    if any(_same(path, source) for source in sources):
        raise HiredError(f"cannot write {one_line(path)}: it is {what}; name another file")


def check_results(paths: Sequence[Path]) -> None:
    """Raise `HiredError` where a file for rows (``.json``) or their plot cannot be written."""
    for path in paths:
        if path.suffix.lower() not in (".json", ".png", ".svg", ".pdf"):
            raise HiredError(f"cannot write {one_line(path)}: name a .json file, or a .png, .svg or .pdf for the plot")
        if path.suffix.lower() != ".json" and importlib.util.find_spec("matplotlib") is None:
            raise MissingDependencyError(MATPLOTLIB)
        check_writable(path)


def check_writable(path: Path) -> None:
    """Try whether a file could be written, and leave nothing behind.

    Raises:
        HiredError: It could not.
    """
    with told(path):
        target = _target(path)
        if target is None:
            return
        with _beside(target) as (file, _):
            file.write(b" " * 4096)  # where the disk is full, an empty file may still be made
            file.flush()


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: beside its target under another name, which then replaces it.

    Links are followed, the target keeps its permissions, and what is no ordinary file (a pipe, a device) is written to
    directly.

    Raises:
        HiredError: The file cannot be written; what was there is as it was.
    """
    with told(path):
        target = _target(path)
        if target is None:
            # Not opened before: a pipe's reader takes the end of the first writer for the end of all.
            descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
            with open(descriptor, "wb") as special:
                if hasattr(os, "O_NONBLOCK"):
                    os.set_blocking(descriptor, True)
                special.write(data)
            return
        with _replacing(target) as (file, _):
            file.write(data)
            file.flush()


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file for what is too large for `write`: the block fills the yielded one, which then replaces `path`.

    Raises:
        HiredError: The file cannot be written; what was there is as it was, and nothing is left behind.
    """
    with told(path):
        target = _target(path)
        if target is None:
            raise OSError(22, "it is no ordinary file")
        with _replacing(target) as (_, beside):
            yield beside


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """An empty file in the directory of `path`, for the time of the block.

    Raises:
        HiredError: It cannot be made.
    """
    with told(path), _beside(Path(os.path.realpath(path))) as (_, beside):
        yield beside


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result, readable.

    Raises:
        HiredError: The file cannot be written.
    """
    write(path, (json.dumps(result, indent=2) + "\n").encode())


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a picture in the format of the path's suffix.

    Raises:
        HiredError: The file cannot be written.
    """
    try:
        data = _encoded(image, _kind(path) or "PNG")
    except (OSError, ValueError) as error:
        raise HiredError(f"cannot write {one_line(path)}: {error}") from error
    write(path, data)


def new_figure(width: float, height: float, dpi: int = 160) -> Any:
    """An empty figure of matplotlib's that belongs to no window.

    Args:
        width, height: in inches.
        dpi: pixels an inch, where it is written as pixels.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(MATPLOTLIB) from error
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_figure(figure: Any, path: Path) -> None:
    """Write a figure of matplotlib's in the format of the path's suffix.

    Raises:
        HiredError: The file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.lower().removeprefix("."))
    write(path, buffer.getvalue())


@contextlib.contextmanager
def told(path: Path, doing: str = "write") -> Iterator[None]:
    """What the system says against writing to a path, or what else is done there, as `HiredError`."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise HiredError(f"cannot {doing} {one_line(path)}: {reason}") from error


def one_line(path: str | os.PathLike[str], most: int = 120) -> str:
    """A path for a message: on one line, of at most `most` characters."""
    clean = "".join(c if c.isprintable() else "?" for c in os.fspath(path))
    return clean if len(clean) <= most else f"{clean[: most - 40]}...{clean[-37:]}"


def _kind(path: Path) -> str | None:
    """The format that a picture's suffix names, where it can be written."""
    Image.init()
    kind = Image.registered_extensions().get(path.suffix.lower())
    return kind if kind in Image.SAVE else None


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _same(path: Path, source: str) -> bool:
    """Whether a path, through whatever links, is the file that is read."""
    try:
        read = os.fstat(sys.stdin.fileno()) if source == "-" else os.stat(source)
        return stat.S_ISREG(read.st_mode) and os.path.samestat(os.stat(path), read)
    except (OSError, ValueError, AttributeError):  # no such file, or no standard input
        return False


def _target(path: Path) -> Path | None:
    """The file behind all links, which may not be there yet; None for what is no ordinary file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        target = Path(os.path.realpath(path))
        folder = path.parent if not path.parent.is_dir() else target.parent  # as it was named, where that tells
        if not folder.is_dir():
            raise OSError(2, f"there is no directory {one_line(folder)}") from None
        return target
    if stat.S_ISDIR(found.st_mode):
        raise OSError(21, "it is a directory")
    if not os.access(path, os.W_OK):
        raise PermissionError(13, "Permission denied")
    if not stat.S_ISREG(found.st_mode):
        return None
    if _printed_to(found):
        raise OSError(17, "what is printed goes there")
    return Path(os.path.realpath(path))


def _printed_to(file: os.stat_result) -> bool:
    """Whether a file is what this process's standard output or error go to."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(file, os.fstat(descriptor)):
                return True
    return False


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in the target's directory; gone at the end, unless it was given another name."""
    beside = target.with_name(f".hired-{secrets.token_hex(8)}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with open(descriptor, "wb") as file:
            yield file, beside
    finally:
        with contextlib.suppress(OSError):
            os.unlink(beside)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside the target, which it replaces once the block has filled it."""
    with _beside(target) as (file, beside):
        yield file, beside
        os.fsync(file.fileno())
        file.close()
        _like(beside, target)
        os.replace(beside, target)


def _like(file: Path, target: Path) -> None:
    """Give a file the permissions, and where that is allowed the owner, of the one it will replace."""
    with contextlib.suppress(FileNotFoundError):
        was = os.stat(target)
        if hasattr(os, "chown"):
            with contextlib.suppress(OSError):
                os.chown(file, was.st_uid, was.st_gid)
        os.chmod(file, stat.S_IMODE(was.st_mode))
