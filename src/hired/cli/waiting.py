"""What is shown while one waits, on standard error and only where that is a terminal; and waiting for a model."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from hired import loading

__all__ = ["bar", "load", "progress"]


def load(
    name: str, device: str = "auto", dtype: str = "auto", trust_remote_code: bool = False, load: str | None = None
) -> loading.Loaded:
    """As `hired.loading.load`, with a spinner; for the rest of this process transformers logs nothing but errors."""
    with progress(f"Loading {name}"):
        import transformers

        transformers.utils.logging.set_verbosity_error()
        return loading.load(name, device, dtype, trust_remote_code, load)


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
