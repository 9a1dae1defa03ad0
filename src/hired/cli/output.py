"""What commands print: tables, warnings, and results before the files that go with them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence

from hired.errors import HiredError

__all__ = [
    "deliver",
    "faint",
    "table",
    "warn",
    "warn_length",
]


def deliver(show: Callable[[], None], *writes: Callable[[], None]) -> None:
    """Print a result, then write its files: what fails keeps nothing else from being done, and is raised after all.

    Args:
        show: Prints the result.
        writes: Each writes one file.
    """
    failed: list[Exception] = []

    def shown() -> None:
        show()
        sys.stdout.flush()

    for step in (shown, *writes):
        try:
            step()
        except Exception as error:
            failed.append(error)
    if len(failed) > 1 and all(isinstance(error, HiredError) for error in failed):
        raise HiredError("; ".join(map(str, failed)))
    if failed:
        raise min(failed, key=lambda error: isinstance(error, BrokenPipeError))


def faint(line: str) -> None:
    """Print a line that is less than the answer above it: dim on a terminal."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(line, style="dim", markup=False, soft_wrap=True)
    else:
        print(line)


def warn(words: str) -> None:
    """Say on standard error what the user should know and what is no error."""
    with contextlib.suppress(OSError):
        print(f"hired: warning: {words}", file=sys.stderr, flush=True)


def warn_length(longest: int, positions: int | None) -> None:
    """Say so where a prompt, or a prompt and its answer, is longer than what a model was made for.

    Args:
        longest: Tokens.
        positions: What `hired.costs.tokens.max_positions` says.
    """
    if positions is not None and longest > positions:
        warn(
            f"{longest:,} tokens, but the LLM was made for {positions:,} positions: what it says beyond them may mean"
            " nothing; lower --budget, or use fewer pictures or words"
        )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print a table: ruled on a terminal, aligned plain text in a pipe. Numbers are aligned right."""
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        ruled = Table(title=None if title is None else Text(title), box=box.SIMPLE_HEAD, title_justify="left")
        for i, name in enumerate(columns):
            ruled.add_column(name, justify="right" if _numeric(rows, i) else "left", overflow="fold")
        for row in rows:
            ruled.add_row(*map(Text, row))
        Console().print(ruled)
        return
    if title:
        print(title)
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    right = [_numeric(rows, i) for i in range(len(columns))]
    for row in (columns, *rows):
        cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        print("  ".join(cells).rstrip())


def _numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    cells = [row[column] for row in rows if row[column]]
    return bool(cells) and all(cell[0].isdigit() for cell in cells)
