"""Agreement over the visual tokens kept, and what they cost, as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hired import files
from hired.agreeing.rows import UNTOUCHED, Row

__all__ = ["figure", "plot"]

_COLOURS = ("#e8590c", "#1971c2", "#2f9e44", "#7048a8", "#f08c00", "#c2255c")
_COST = "#868e96"
_WORDS = {"exact": "same answer as with all tokens, %", "similar": "similarity to the answer with all tokens, %"}


def plot(rows: Sequence[Row], path: Path, title: str, agree: float, measure: str) -> None:
    """Write the plot of `figure` to `path`, in the format of its suffix.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        HiredError: The file cannot be written.
    """
    files.write_figure(figure(rows, title, agree, measure), path)


def figure(rows: Sequence[Row], title: str, agree: float, measure: str) -> Any:
    """A line a method with its interval, over tokens, and the time to first token on a second axis where it was timed.

    Args:
        rows: As `hired.agreement` gives them.
        title: Above the plot.
        agree: The agreement asked for, 0..1, drawn as a line.
        measure: One of `hired.agreeing.MEASURES`.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    whole = files.new_figure(7.6, 4.6)
    from matplotlib.ticker import FixedLocator, NullLocator

    axes = whole.add_subplot()
    names = list(dict.fromkeys(row["method"] for row in rows if row["method"] != UNTOUCHED))
    for place, name in enumerate(names):
        points = sorted((row for row in rows if row["method"] in (name, UNTOUCHED)), key=lambda row: row["tokens"])
        beside = 1 + 0.015 * (place - (len(names) - 1) / 2)  # so that bars of several methods do not hide each other
        tokens = [row["tokens"] * (1 if row["method"] == UNTOUCHED else beside) for row in points]
        values = [100 * row[measure] for row in points]  # type: ignore[literal-required]
        edges = [row[f"{measure}_interval"] for row in points]  # type: ignore[literal-required]
        below = [max(0.0, value - 100 * edge[0]) for value, edge in zip(values, edges, strict=True)]
        above = [max(0.0, 100 * edge[1] - value) for value, edge in zip(values, edges, strict=True)]
        colour = _COLOURS[place % len(_COLOURS)]
        axes.errorbar(tokens, values, (below, above), color=colour, elinewidth=1.2, capsize=3, linestyle="none")
        axes.plot(tokens, values, color=colour, marker="o", linewidth=2, label=name, clip_on=False, zorder=3)
    axes.axhline(
        100 * agree, color="#495057", linewidth=1, linestyle="--", zorder=1, label=f"{100 * agree:g} % asked for"
    )
    axes.set_xscale("log")
    labels = _ticks(rows)
    axes.xaxis.set_major_locator(FixedLocator(list(labels)))
    axes.set_xticklabels(list(labels.values()), fontsize=8)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 100)
    axes.set_xlabel("visual tokens a picture (mean), budget below")
    axes.set_ylabel(_WORDS[measure])
    axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    axes.grid(axis="y", color="#e9ecef", linewidth=0.8)
    axes.spines[["top"]].set_visible(False)
    handles = [*axes.get_legend_handles_labels()[0], *_cost(axes, rows, names)]
    axes.legend(handles=handles, frameon=False, loc="lower right", fontsize=9)
    return whole


def _ticks(rows: Sequence[Row]) -> dict[float, str]:
    """Words by place on the axis, none so near to the one before, on its right, that they would touch."""
    found: dict[float, str] = {}
    last = float("inf")
    for row in sorted(rows, key=lambda row: -row["tokens"]):
        if row["tokens"] < 0.86 * last:
            last = row["tokens"]
            found[last] = f"{last:,.0f}\n{row['budget']}"
    return found


def _cost(axes: Any, rows: Sequence[Row], names: Sequence[str]) -> list[Any]:
    """Times to first token on an axis of their own; the handles for the legend, none where nothing was timed."""
    points = [row for row in rows if row["method"] in (UNTOUCHED, names[0]) and row["ttft_s"] is not None]
    if len(points) < 2:
        axes.spines[["right"]].set_visible(False)
        return []
    points.sort(key=lambda row: row["tokens"])
    other = axes.twinx()
    other.spines[["top"]].set_visible(False)
    times = [row["ttft_s"] or 0.0 for row in points]
    (line,) = other.plot(
        [row["tokens"] for row in points], times, color=_COST, marker="s", markersize=4, linestyle=":", linewidth=1.6,
        label=f"time to first token, {names[0]}" if len(names) > 1 else "time to first token",
    )  # fmt: skip
    other.set_ylim(0, 1.25 * max(times))
    other.set_ylabel("time to first token, s", color=_COST)
    other.tick_params(axis="y", colors=_COST)
    return [line]
