"""The page `docs/leaderboard.md` and its plots, from the files that `benchmarks.leaderboard` wrote."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOLDER = HERE / "leaderboard"
TIMES = HERE / "leaderboard-time.json"
PAGE = HERE.parent / "docs" / "leaderboard.md"
IMAGES = HERE.parent / "docs" / "images"
NAMES = {
    "tiny": "the shipped model (CLIP, CLS token)",
    "tiny_aya": "the second model (SigLIP, no CLS token, 2 x 2 merged)",
}
TASKS = {
    "forms": "small print, 1 to 4 lines",
    "forms-unseen": "the same in typefaces that training never showed",
    "dense": "small print, about three lines a tile",
    "large": "large print and shapes that tile borders cut",
    "shapes": "colours, kinds and numbers of shapes",
    "layout": "where things are, what lies beside them",
    "mixed": "all of it on one page",
}


def path(model: str, task: str, method: str) -> Path:
    """Where a method's results on a task are."""
    return FOLDER / model / task / f"{method}.json"


def results(model: str, task: str) -> dict[str, dict[float, dict[str, Any]]]:
    """Rows by method and budget."""
    found = {}
    for file in sorted((FOLDER / model / task).glob("*.json")):
        rows = json.loads(file.read_text())["results"]
        found[file.stem] = {row["budget"]: row for row in rows}
    return found


def measured() -> list[tuple[str, str]]:
    """(model, task) of everything that has files."""
    return [(model, task) for model in NAMES for task in TASKS if (FOLDER / model / task).is_dir()]


def mean(rows: dict[float, dict[str, Any]]) -> float:
    """Of the exact match over the budgets below 1: what the table is sorted by."""
    below = [row["exact_match"] for budget, row in rows.items() if budget < 1]
    return sum(below) / len(below)


def table(model: str, task: str) -> str:
    """A Markdown table: a row a method, a column a budget; in bold what is within the best one's interval."""
    found = results(model, task)
    budgets = sorted({budget for rows in found.values() for budget in rows if budget < 1}, reverse=True)
    best = {budget: max(rows[budget]["low"] for rows in found.values() if budget in rows) for budget in budgets}
    some = found.get("hired") or next(iter(found.values()))
    head = [f"{budget:.0%} ({some[budget]['tokens']:.0f} tokens)" for budget in budgets]
    lines = ["| method | " + " | ".join(head) + " | ms |", "|---" * (len(head) + 2) + "|"]
    for name in sorted(found, key=lambda name: -mean(found[name])):
        cells = []
        for budget in budgets:
            row = found[name].get(budget)
            if row is None:
                cells.append("")
                continue
            text = f"{100 * row['exact_match']:.1f} ({100 * row['low']:.1f}-{100 * row['high']:.1f})"
            cells.append(f"**{text}**" if row["high"] >= best[budget] and row["exact_match"] >= best[budget] else text)
        spent = [row["choose_ms"] for row in found[name].values() if row["choose_ms"] is not None]
        cells.append(f"{sorted(spent)[len(spent) // 2]:.1f}" if spent else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    whole = next((rows[1] for rows in found.values() if 1 in rows), None)
    if whole is not None:
        lines.append("")
        text = f"{100 * whole['exact_match']:.1f} ({100 * whole['low']:.1f}-{100 * whole['high']:.1f})"
        lines.append(f"Everything kept: {text} with {whole['tokens']:.0f} tokens; n = {whole['n']:,}.")
    return "\n".join(lines)
