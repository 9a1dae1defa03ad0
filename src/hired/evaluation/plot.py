"""Exact match beside tokens, as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hired import files
from hired.evaluation.settings import CHECKS

if TYPE_CHECKING:
    from hired.evaluation.run import Row

__all__ = ["plot"]

_COLOURS = {
    "hired": "#e8590c",
    "uniform": "#1971c2",
    "random": "#868e96",
    "overview": "#2f9e44",
    "published": "#f08c00",
    "smaller": "#7048a8",
    "blank-half": "#212529",
    "no-newlines": "#212529",
}
_MARKS = {"hired": "o", "uniform": "s", "random": "D", "overview": "^", "smaller": "v", "published": "P"}


def plot(rows: Sequence[Row], path: Path, title: str) -> None:
    """Write the plot to `path`, in the format of its suffix.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        HiredError: The file cannot be written.
    """
    figure = files.new_figure(7.2, 4.6)
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes = figure.add_subplot()
    names = list(dict.fromkeys(row["method"] for row in rows))
    for name in reversed(names):
        points = sorted((row["tokens"], 100 * row["exact_match"]) for row in rows if row["method"] == name)
        check = name in CHECKS
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=_COLOURS.get(name, "#495057"),
            marker=("x" if name == "blank-half" else "+") if check else _MARKS.get(name, "o"),
            linestyle="none" if check else "-",
            linewidth=2.4 if name == "hired" else 1.4,
            markersize=7 if name == "hired" or check else 5,
            label=name,
            zorder=3 if name == "hired" else 2,
        )
    full = max(rows, key=lambda row: row["tokens"])
    axes.axhline(100 * full["exact_match"], color="#adb5bd", linewidth=1, linestyle="--", zorder=1)
    axes.set_xscale("log")
    ticks = sorted({row["tokens"] for row in rows if row["method"] in ("hired", full["method"])})
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    # Markers at the ends of the scale are whole.
    axes.set_ylim(0, 100)
    for line in axes.lines:
        line.set_clip_on(False)
    axes.set_xlabel("visual tokens a picture (mean)")
    axes.set_ylabel(f"exact match, % of {full['n']:,} pictures")
    axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    axes.grid(axis="y", color="#e9ecef", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], frameon=False, loc="lower right")
    files.write_figure(figure, path)
