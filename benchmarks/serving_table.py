"""The tables of `docs/serving.md`, from `serving-*.json`.

python benchmarks/serving_table.py      # writes them into the page
"""

import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "serving.md"
BEGIN, END = "<!-- benchmarks/serving_table.py -->", "<!-- end -->"
COLUMNS = {
    "server": lambda row: "stock vLLM" if row["arm"] == "stock" else f"budget {row['budget']:g}",
    "visual tokens": lambda row: f"{row['visual_tokens']:,}",
    "requests/s": lambda row: f"{row['requests_per_s']:.2f}",
    "CPU time a request, ms": lambda row: f"{1000 * row['cpu_s_per_request']:.0f}",
    "first token, s": lambda row: f"{row['ttft_s']:.2f}",
    "99 of 100 within, s": lambda row: f"{row['ttft_p99_s']:.2f}",
    "first to last": lambda row: f"{row['ttft_first_s']:.2f} to {row['ttft_last_s']:.2f}",
    "a token, ms": lambda row: f"{1000 * row['token_s']:.0f}",
    "KV cache at its fullest, tokens": lambda row: f"{row['kv_peak'] * row['kv_tokens']:,.0f}",
}
"""What a table shows of a row. A file that was measured without something has no such column."""


def results() -> list[Path]:
    """The committed result files of `benchmarks/serving.py`."""
    return sorted(HERE.glob("serving-*.json"))


def tables(paths: list[Path] | None = None) -> str:
    """One table a file, and what it was measured on."""
    parts = []
    for path in results() if paths is None else paths:
        content = json.loads(path.read_text())
        machine, settings = content["machine"], content["settings"]
        name = content["subject"] + (", random weights" if content["random_weights"] else "")
        device = "CPU" if machine["device"] == "cpu" else machine["device"]
        lines = table([median(rows) for rows in by_arm(content["arms"])])
        rounds = max(row.get("round", 0) for row in content["arms"]) + 1
        versions = ", ".join(f"{key} {value}" for key, value in content["versions"].items())
        parts.append(
            f"**{name}, {device}, {machine['dtype']}**: {settings['requests']} requests, {settings['concurrency']} at a"
            f" time, one picture of {settings['image']} each, {settings['new_tokens']} new tokens"
            + (f"; the medians of {rounds} rounds.\n\n" if rounds > 1 else ".\n\n")
            + "\n".join(lines)
            + f"\n\n`{path.name}`: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB;"
            f" {machine['date']}; {versions}."
        )
    return "\n\n".join(parts)


def page(text: str) -> str:
    """The page with its tables made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.split(END)[1]}"


def by_arm(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rounds of every arm, in the order in which they were measured first."""
    arms = dict.fromkeys(row["arm"] for row in rows)
    return [[row for row in rows if row["arm"] == arm] for arm in arms]


def median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of several rounds: the median of every number."""
    every = {key: [row[key] for row in rows] for key in rows[0]}
    numbers = {key: held for key, held in every.items() if isinstance(held[0], float | int) and len({*held}) > 1}
    return {**rows[0], **{key: statistics.median(held) for key, held in numbers.items()}}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The lines of one table; a column that no row has is left out."""
    columns = [(name, [_cell(show, row) for row in rows]) for name, show in COLUMNS.items()]
    held = [(name, cells) for name, cells in columns if any(cells)]
    heads, cells = zip(*held, strict=True)
    return [_line(heads), "|---" * len(heads) + "|", *map(_line, zip(*cells, strict=True))]


def _cell(show: Callable[[dict[str, Any]], str], row: dict[str, Any]) -> str:
    try:
        return show(row)
    except (KeyError, TypeError):  # not measured, or not to be had
        return ""


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
