"""What is shown while one waits, on standard error and only where that is a terminal; and waiting for a model."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from hired import loading

__all__ = ["load", "progress"]


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
