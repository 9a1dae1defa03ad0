"""What is shown while one waits, on standard error and only where that is a terminal; and waiting for a model."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hired import files, loading

__all__ = ["bar", "load", "load_file", "progress", "share"]


def load(
    name: str, device: str = "auto", dtype: str = "auto", trust_remote_code: bool = False, load: str | None = None
) -> loading.Loaded:
    """As `hired.loading.load`, with a spinner; for the rest of this process transformers logs nothing but errors."""
    with progress(f"Loading {name}"):
        import transformers

        transformers.utils.logging.set_verbosity_error()
        return loading.load(name, device, dtype, trust_remote_code, load)


def load_file(
    name: str,
    file: Path,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    words: bool = False,
) -> loading.Loaded:
    """As `hired.gguf.loaded.load`, with a spinner and transformers as in `load`."""
    with progress(f"Loading {name} and {files.one_line(file)}"):
        import transformers

        from hired.gguf import loaded

        transformers.utils.logging.set_verbosity_error()
        return loaded.load(name, file, device, dtype, trust_remote_code, words)


@contextlib.contextmanager
def progress(words: str) -> Iterator[None]:
    """A spinner while the block runs."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(words):
        yield


@contextlib.contextmanager
def bar(words: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar while the block runs, which is told of so many more of `total`."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(words, total=total)
        yield lambda count: shown.advance(task, count)


@contextlib.contextmanager
def share(words: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar while the block runs, which is told what is done, and how many of how many bytes are.

    Until then it shows `words`.
    """
    if not sys.stderr.isatty():
        yield lambda words, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(words, total=None)

        def told(words: str, done: int, total: int) -> None:
            shown.update(task, description=words.capitalize(), completed=done, total=total)

        yield told
