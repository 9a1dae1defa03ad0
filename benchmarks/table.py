"""Prints the README's accuracy table from `forms.json`: `python benchmarks/table.py`."""

import json
from pathlib import Path

HERE = Path(__file__).parent
NAMES = {
    "hired": "**HiRED**",
    "uniform": "every n-th token",
    "random": "random tokens",
    "overview": "full image only",
    "smaller": "smaller picture",
}


def table(path: Path = HERE / "forms.json") -> str:
    """A Markdown table: a row a method, a column a budget, exact match in percent."""
    rows = json.loads(path.read_text())["results"]
    budgets = sorted({row["budget"] for row in rows}, reverse=True)
    found = {(row["method"], row["budget"]): row for row in rows}
    kept = {b: found["hired", b]["tokens"] for b in budgets}
    head = [f"{b:.0%} ({kept[b]:.0f} tokens)" for b in budgets]
    lines = ["| exact match, % | " + " | ".join(head) + " |", "|---" * (len(budgets) + 1) + "|"]
    for method, name in NAMES.items():
        cells = [f"{100 * found[method, b]['exact_match']:.1f}" if (method, b) in found else "" for b in budgets]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
