"""Time to first token, as plots: by stage for each budget, or against picture size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hired import files
from hired.bench.settings import Arm
from hired.errors import HiredError

if TYPE_CHECKING:
    from hired.bench.rows import Row

__all__ = ["plot"]

_STAGES = (("encode_s", "encode", "#1971c2"), ("select_s", "select", "#212529"), ("prefill_s", "prefill", "#e8590c"))
_COLOURS = ("#868e96", "#e8590c", "#1971c2", "#2f9e44", "#7048a8", "#f08c00")


def plot(rows: Sequence[Row], path: Path, title: str) -> None:
    """Writes a plot of the rows to `path`, in the format of its suffix.

    One picture size: a bar an arm, of its stages, with a mark where the untouched parts would be. Several: a line an
    arm.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        HiredError: there is nothing to draw, or the file cannot be written.
    """
    done = [row for row in rows if row["ttft_s"] is not None]
    by_size = len({tuple(row["image"]) for row in done}) > 1
    figure = files.new_figure(7.2 if by_size else max(7.2, 0.95 * len(rows)), 4.6)  # every bar has words below it
    if not done:
        raise HiredError(f"nothing to draw in {files.one_line(path)}: every arm ran out of memory")
    axes = figure.add_subplot()
    if by_size:
        _by_size(axes, done)
    else:
        _by_stage(axes, rows)
    axes.set_ylim(bottom=0)
    for line in axes.lines:  # markers at the ends of the scale are whole
        line.set_clip_on(False)
    axes.set_ylabel("time to first token, s")
    axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    axes.grid(axis="y", color="#e9ecef", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, markerscale=0.5)
    files.write_figure(figure, path)


def _name(row: Row) -> str:
    return Arm(row["budget"], row["encoder_budget"]).name


def _by_stage(axes: Any, rows: Sequence[Row]) -> None:
    """A bar a row."""
    batches = len({row["batch"] for row in rows}) > 1
    places = list(range(len(rows)))
    base = [0.0] * len(rows)
    for key, label, colour in _STAGES:
        heights = [float(row.get(key) or 0.0) for row in rows]  # type: ignore[arg-type]
        axes.bar(places, heights, bottom=base, width=0.62, color=colour, label=label)
        base = [low + height for low, height in zip(base, heights, strict=True)]
    marked = [(place, row["allowed_ttft_s"]) for place, row in zip(places, rows, strict=True) if row["budget"] != 1]
    marked = [(place, allowed) for place, allowed in marked if allowed is not None]
    if marked:
        axes.hlines(
            [allowed for _, allowed in marked],
            [place - 0.26 for place, _ in marked],
            [place + 0.26 for place, _ in marked],
            linewidth=2,
            color="#212529",
            label="allowed: untouched encoder + text prefill",
        )
    labels = []
    for place, row in zip(places, rows, strict=True):
        batch = f"\nbatch {row['batch']}" if batches else ""
        labels.append(f"{_name(row).replace(', ', chr(10))}\n{row['tokens']:,} tokens{batch}")
        if row["ttft_s"] is None:
            axes.text(place, 0, " out of memory", rotation=90, ha="center", va="bottom", fontsize=8)
    axes.set_xticks(places, labels, fontsize=8)


def _by_size(axes: Any, rows: Sequence[Row]) -> None:
    """A line an arm and batch, over the picture's pixels."""
    batches = len({row["batch"] for row in rows}) > 1
    lines = list(dict.fromkeys((_name(row), row["batch"]) for row in rows))
    for index, (name, batch) in enumerate(lines):
        points = sorted(
            (row["image"][0] * row["image"][1] / 1e6, row["ttft_s"] or 0.0)
            for row in rows
            if (_name(row), row["batch"]) == (name, batch)
        )
        label = "full" if name == "100 %" else name
        axes.plot(
            *zip(*points, strict=True),
            marker="o",
            linewidth=1.8,
            color=_COLOURS[index % len(_COLOURS)],
            label=f"{label}, batch {batch}" if batches else label,
        )
    encoders = sorted(
        {(row["image"][0] * row["image"][1] / 1e6, row["encode_s"] or 0.0) for row in rows if row["budget"] == 1}
    )
    if encoders and not batches:
        axes.plot(*zip(*encoders, strict=True), linestyle="--", linewidth=1.2, color="#495057", label="encoder alone")
    axes.set_xlabel("picture, million pixels")
