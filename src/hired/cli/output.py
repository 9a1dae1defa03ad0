"""What commands print and write: tables, files, versions and memory."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from PIL import Image

from hired._version import __version__
from hired.errors import HiredError

__all__ = ["check_picture_path", "check_writable", "peak_memory_mb", "save_picture", "table", "versions"]


def check_picture_path(path: Path) -> None:
    """Raise `HiredError` where no picture can be written to `path`, before any work is done for it."""
    Image.init()
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise HiredError(f"cannot write {path}: name a picture file, such as {path.stem or 'out'}.png")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Raise `HiredError` where `path` is a directory or lies in none."""
    if path.is_dir():
        raise HiredError(f"cannot write {path}: it is a directory")
    if not path.parent.is_dir():
        raise HiredError(f"cannot write {path}: there is no directory {path.parent}")


def check_results(paths: Sequence[Path]) -> None:
    """Raise `HiredError` where a file for rows (``.json``) or their plot cannot be written."""
    for path in paths:
        if path.suffix.lower() not in (".json", ".png", ".svg", ".pdf"):
            raise HiredError(f"cannot write {path}: name a .json file, or a .png, .svg or .pdf for the plot")
        check_writable(path)


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result, readable.

    Raises:
        HiredError: The file cannot be written.
    """
    try:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise HiredError(f"cannot write {path}: {error.strerror or error}") from error


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a picture in the format of the path's suffix.

    Raises:
        HiredError: The file cannot be written.
    """
    try:
        image.save(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise HiredError(f"cannot write {path}: {reason}") from error


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print a table: ruled on a terminal, aligned plain text in a pipe. Numbers are aligned right."""
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table

        ruled = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
        for i, name in enumerate(columns):
            ruled.add_column(name, justify="right" if _numeric(rows, i) else "left", overflow="fold")
        for row in rows:
            ruled.add_row(*row)
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


def versions() -> dict[str, str]:
    """Versions of this library, Python and what the numbers depend on."""
    found = {"hired": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "pillow"):
        found[name] = metadata.version(name)
    return found


def peak_memory_mb(device: str) -> float | None:
    """Peak memory in MB (10^6 bytes): the GPUs' allocations on ``cuda``, else this process's resident set.

    None where the system does not tell (Windows).
    """
    if device == "cuda":
        import torch

        total = sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
        return round(total / 1e6, 1)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)
