"""The paper's table beside what was measured, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from hired.harness.paper import BENCHMARKS, PUBLISHED
from hired.harness.settings import Settings

__all__ = ["Row", "notes", "plot", "rows", "table"]


class Row(TypedDict):
    """One number, and the paper's.

    Attributes:
        task: lmms-eval's name.
        budget: the budget.
        measured: in the paper's units.
        paper: table 1's number of HiRED at this budget, or of the model with all tokens; None where it has none.
        difference: measured less the paper's; None where the two are not to be compared: another model, a method that
            is not HiRED, or part of a benchmark that adds up its documents.
    """

    task: str
    budget: float
    measured: float
    paper: float | None
    difference: float | None


def rows(settings: Settings, papers: bool, runs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The numbers of all runs, in their order; `papers` says whether the checkpoint has the shape of the paper's."""
    found = []
    for run in runs:
        task, budget = run["task"], run["budget"]
        ours = budget == 1 or settings.method == "hired"
        paper = PUBLISHED.get(budget, {}).get(task) if ours else None
        part = settings.limit is not None and task in BENCHMARKS and BENCHMARKS[task].adds
        difference = None if paper is None or part or not papers else round(run["score"] - paper, 4)
        found.append(Row(task=task, budget=budget, measured=run["score"], paper=paper, difference=difference))
    return found


def table(found: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells: for every budget the paper's line, the measured one and the difference."""
    tasks = list(dict.fromkeys(row["task"] for row in found))
    by_key = {(row["task"], row["budget"]): row for row in found}
    cells = []
    for budget in dict.fromkeys(row["budget"] for row in found):
        mine = [by_key[task, budget] for task in tasks]
        name = f"{budget:.0%}" if budget <= 1 else f"{budget:g} tokens"
        if any(row["paper"] is not None for row in mine):
            cells.append([name, "paper", *(_number(row["task"], row["paper"]) for row in mine)])
            name = ""
        cells.append([name, "measured", *(_number(row["task"], row["measured"]) for row in mine)])
        if any(row["difference"] is not None for row in mine):
            cells.append(["", "difference", *(_number(row["task"], row["difference"], "+") for row in mine)])
    return ["budget", "", *(_column(task) for task in tasks)], cells


def notes(settings: Settings, papers: bool, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is to be known of the table, a line each."""
    said = [f"Asked by lmms-eval's {', '.join(dict.fromkeys(run['base_class'] for run in runs))}."]
    kept = [f"{run['budget']:g}: {run['visual_tokens_kept']:,.0f}" for run in runs if run["task"] == runs[0]["task"]]
    said.append(f"Visual tokens of a picture of {runs[0]['task']} by budget: {', '.join(kept)}.")
    if settings.limit is not None:
        said.append(f"The first {settings.limit:,} documents of every task: differences are no reproduction.")
    if not papers and any(run["task"] in BENCHMARKS for run in runs):
        said.append("The paper's numbers are LLaVA-NeXT-7B's; this is another model, so no differences are given.")
    if settings.method != "hired":
        said.append(f"Measured with method {settings.method!r}; the paper's numbers below 100% are HiRED's.")
    return said


def plot(found: Sequence[Row], path: Path, title: str) -> None:
    """Writes a small plot of every task: measured and the paper's numbers by budget.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        HiredError: the file cannot be written.
    """
    from hired import files

    tasks = list(dict.fromkeys(row["task"] for row in found))
    across = min(4, len(tasks))
    down = -(-len(tasks) // across)
    figure = files.new_figure(2.7 * across + 0.4, 2.3 * down + 0.6)
    budgets = sorted({row["budget"] for row in found}, key=lambda budget: (budget > 1, budget))
    places = {budget: place for place, budget in enumerate(budgets)}
    for place, task in enumerate(tasks):
        axes = figure.add_subplot(down, across, place + 1)
        mine = sorted((row for row in found if row["task"] == task), key=lambda row: places[row["budget"]])
        told = [(places[row["budget"]], row["paper"]) for row in mine if row["paper"] is not None]
        if told:
            axes.plot(
                *zip(*told, strict=True), color="#868e96", marker="s", linestyle="--", label="paper", clip_on=False
            )
        measured = [(places[row["budget"]], row["measured"]) for row in mine]
        axes.plot(*zip(*measured, strict=True), color="#e8590c", marker="o", label="measured", clip_on=False)
        axes.set_xticks(range(len(budgets)), [f"{100 * b:g}%" if b <= 1 else f"{b:g}" for b in budgets])
        axes.set_ylim(bottom=0)
        axes.set_title(_column(task), loc="left", fontsize=9, parse_math=False)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color="#e9ecef", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        if not place:
            axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle(title, fontsize=10, x=0.01, ha="left", parse_math=False)
    files.write_figure(figure, path)


def _column(task: str) -> str:
    return BENCHMARKS[task].column if task in BENCHMARKS else task


def _number(task: str, value: float | None, sign: str = "") -> str:
    """As the paper prints it: whole points of benchmarks that add up, else a tenth of a percent."""
    if value is None:
        return "-"
    known = BENCHMARKS.get(task)
    return f"{value:{sign}.0f}" if known and known.adds else f"{value:{sign}.1f}" if known else f"{value:{sign}.4g}"
