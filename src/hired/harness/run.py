"""A reproduction: every task under every budget, a process a budget, each result written as soon as it is there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hired.errors import HiredError
from hired.harness.requirements import check
from hired.harness.settings import Settings

__all__ = ["Folder", "reproduce"]

Progress = Callable[[Mapping[str, Any]], None]


class Folder:
    """Where results are kept: `results.json`, `log.txt` with what lmms-eval said, and files that tasks leave."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = path / "results.json"

    def read(self, settings: Settings) -> tuple[bool, list[dict[str, Any]]]:
        """Whether the model has the shape of the paper's, and the runs that are done.

        Raises:
            HiredError: the file is no such file, or holds results of other settings.
        """
        if not self.results.exists():
            return False, []
        where = repr(str(self.results))
        try:
            held = json.loads(self.results.read_text(encoding="utf-8"))
            runs, was, papers = list(held["runs"]), dict(held["settings"]), bool(held["papers_model"])
            keys = {(run["task"], run["budget"]) for run in runs}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HiredError(f"{where} holds no results of hired reproduce: name another folder with -o") from error
        now = settings.fixed()
        other = [name for name in now if was.get(name) != now[name]]
        if other and keys:
            told = ", ".join(f"{name}={was.get(name)!r}" for name in other)
            raise HiredError(f"{where} holds results of other settings ({told}): name another folder with -o")
        return papers, runs

    def write(self, settings: Settings, papers: bool, runs: Sequence[Mapping[str, Any]]) -> None:
        """Writes the runs that are done, whole or not at all.

        Raises:
            HiredError: the file cannot be written.
        """
        from hired import files

        found = {"settings": settings.fixed(), "papers_model": papers, "runs": runs}
        files.write_json(self.results, found)


def reproduce(
    settings: Settings,
    folder: Path,
    progress: Progress = lambda event: None,
    definitions: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[bool, list[dict[str, Any]]]:
    """Runs what has not been run yet.

    Args:
        settings: what to measure.
        folder: where results are kept, and found again after an interruption; made if it is not there.
        progress: called with `budget` events and those of `hired.harness.worker.run`.
        definitions: by task, what to change in lmms-eval's definition of it, such as where its data lie.

    Returns:
        Whether the checkpoint has the shape of the paper's; and a run for every budget and task, in their order, as
        `hired.harness.worker.run` makes them.

    Raises:
        HiredError: anything that is missing, wrong, or that a run failed with. Runs that were done are kept.
    """
    budgets = settings.check()
    kept = Folder(folder)
    papers, done = kept.read(settings)
    have = {(run["task"], run["budget"]) for run in done}
    wanted = [(task, budget) for budget in budgets for task in settings.tasks]
    own = dict(definitions or {})
    left = [task for task, budget in wanted if (task, budget) not in have]
    if left:
        papers = check(settings, [task for task in dict.fromkeys(left) if task not in own])
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HiredError(f"cannot make the folder {str(folder)!r}: {error.strerror or error}") from error
        kept.write(settings, papers, done)
    for budget in budgets:
        left = [task for task in settings.tasks if (task, budget) not in have]
        progress({"kind": "budget", "budget": budget, "tasks": left})
        if not left:
            continue
        job = {
            "settings": asdict(settings),
            "budget": budget,
            "tasks": [{"task": task, **own[task]} if task in own else task for task in left],
            "submissions": str(folder / f"submissions-{budget:g}"),
        }
        for event in _events(job, folder / "log.txt"):
            progress(event)
            if event["kind"] == "done":
                done.append(event["run"])
                kept.write(settings, papers, done)
    found = {(run["task"], run["budget"]): run for run in done}
    return papers, [found[each] for each in wanted]


def _events(job: Mapping[str, Any], log: Path) -> Iterator[dict[str, Any]]:
    """What a worker tells, until it has done all of its job.

    Raises:
        HiredError: it could not.
    """
    with log.open("a", encoding="utf-8") as words, _worker(words) as process:
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(job))
        for line in process.stdout:
            event = json.loads(line)
            if event["kind"] == "error":
                raise HiredError(f"budget {job['budget']:g}: {event['message']} (more in {str(log)!r})")
            yield event
        code = process.wait()
    if code:
        raise HiredError(
            f"the run of budget {job['budget']:g} ended with code {code}; what it said last is in {str(log)!r}"
        )


@contextlib.contextmanager
def _worker(log: Any) -> Iterator[Any]:
    """A worker's process, which ends with the block, whatever ends that."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hired.harness.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
