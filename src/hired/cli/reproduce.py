"""``hired reproduce``: the paper's benchmarks through lmms-eval, beside its table."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from hired import files
from hired.cli import output
from hired.errors import MissingDependencyError
from hired.harness.report import notes, plot, rows, table
from hired.harness.run import reproduce
from hired.harness.settings import Settings

__all__ = ["run"]


def run(settings: Settings, folder: Path, as_json: bool) -> None:
    """Run what is not in the folder yet, write the plot there, and print the table or one JSON object.

    Raises:
        HiredError: Something is missing or wrong, or a run failed; finished runs stay in the folder.
    """
    if importlib.util.find_spec("matplotlib") is None:  # before hours, and not after
        raise MissingDependencyError(files.MATPLOTLIB)
    with _progress(settings) as tell:
        papers, runs = reproduce(settings, folder, tell)
    found = rows(settings, papers, runs)
    result = {"settings": asdict(settings), "papers_model": papers, "rows": found, "runs": runs}

    def show() -> None:
        if as_json:
            print(json.dumps(result))
            return
        output.table(*table(found), f"{settings.model}, {settings.method}")
        print(*notes(settings, papers, runs), sep="\n")
        print(f"Results, log and plot are in {folder}.")

    output.deliver(show, partial(plot, found, folder / "results.png", f"{settings.model}, {settings.method}"))


@contextlib.contextmanager
def _progress(settings: Settings) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A bar on standard error for the task that runs; a line a finished task where that is no terminal."""
    if not sys.stderr.isatty():
        yield _say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        now = bar.add_task("Looking for model and data", total=None)
        where: dict[str, Any] = {}

        def tell(event: Mapping[str, Any]) -> None:
            where.update(event)
            if event["kind"] == "budget":
                bar.reset(now, total=None, description=f"Budget {event['budget']:g}: loading {settings.model}")
            elif event["kind"] == "task":
                bar.reset(now, total=None, description=f"Budget {where['budget']:g}: {event['task']}")
            elif event["kind"] == "asked" and event["questions"]:
                bar.update(now, total=event["questions"])
            elif event["kind"] == "asked":
                bar.advance(now)

        yield tell


def _say(event: Mapping[str, Any]) -> None:
    """A finished task, for logs."""
    if event["kind"] == "done":
        run = event["run"]
        words = f"{run['task']} at {run['budget']:g}: {run['metric']} {run['score']:.4g} of {run['n']:,} documents"
        print(f"{words}, {run['seconds']:,.0f} s", file=sys.stderr, flush=True)
