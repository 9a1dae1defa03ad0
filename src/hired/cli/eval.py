"""``hired eval``: measure, print, write."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hired import files, prompts
from hired.cli import output, waiting
from hired.evaluation import Settings
from hired.loading.strangers import strangers
from hired.machine import versions

if TYPE_CHECKING:
    from hired.evaluation.run import Row

__all__ = ["run"]


def run(
    settings: Settings,
    model: str,
    device: str,
    dtype: str,
    out: Sequence[Path],
    as_json: bool,
    trust_remote_code: bool = False,
) -> None:
    """Measure, print a table or one JSON object, and write the files asked for.

    Raises:
        HiredError: The settings or the model will not do, or a file cannot be written.
    """
    settings.check()
    files.check_results(out)
    loaded = waiting.load(model, device, dtype, trust_remote_code)

    from hired.costs.tokens import max_positions
    from hired.evaluation.run import evaluate
    from hired.machine import machine

    start = time.perf_counter()
    lengths: set[int] = set()
    with waiting.bar("Pictures", settings.limit) as advance, strangers(model, "measure", through=OSError):
        rows = evaluate(loaded.model, loaded.processor, settings, prompts.prompt, advance, lengths.add)
    result: dict[str, Any] = {
        "task": settings.task,
        "model": model,
        "results": rows,
        "settings": asdict(settings),
        "versions": versions(),
        "machine": machine(loaded.model),
        "seconds": round(time.perf_counter() - start, 1),
    }
    output.warn_length(max(lengths, default=0), max_positions(loaded.model.config))
    output.deliver(
        lambda: print(json.dumps(result)) if as_json else _print(settings, model, rows),
        *(partial(_write, path, result, rows) for path in out),
    )


def _write(path: Path, result: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write the table (``.json``) or the plot."""
    if path.suffix.lower() != ".json":
        from hired.evaluation.plot import plot

        fonts = ", unseen fonts" if result["settings"]["fonts"] == "unseen" else ""
        newlines = ", newlines kept" if result["settings"]["newlines"] == "keep" else ""
        plot(rows, path, f"{result['model']} on {result['task']}{fonts}{newlines}")
        return
    files.write_json(path, result)


def _print(settings: Settings, model: str, rows: Sequence[Row]) -> None:
    """The table for people."""
    fonts = " in unseen fonts" if settings.fonts == "unseen" else ""
    title = f"{model} on {settings.task}{fonts}: exact match on {rows[0]['n']:,} pictures"
    columns = ("method", "budget", "tokens", "exact match", "correct")
    cells = [
        (
            row["method"],
            f"{row['budget']:g}",
            f"{row['tokens']:,.1f}",
            f"{row['exact_match']:.1%}".replace("%", " %"),
            f"{row['correct']:,}",
        )
        for row in rows
    ]
    output.table(columns, cells, title)
