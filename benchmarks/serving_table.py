"""The tables of `docs/serving.md`, from `serving-*.json`.

python benchmarks/serving_table.py      # writes them into the page
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "serving.md"
BEGIN, END = "<!-- benchmarks/serving_table.py -->", "<!-- end -->"
COLUMNS = (
    "server",
    "visual tokens",
    "requests/s",
    "first token, s",
    "first to last",
    "a token, ms",
    "KV cache at its fullest, tokens",
)


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
        lines = [_line(COLUMNS), "|---" * len(COLUMNS) + "|", *(_line(_cells(row)) for row in content["arms"])]
        versions = ", ".join(f"{key} {value}" for key, value in content["versions"].items())
        parts.append(
            f"**{name}, {device}, {machine['dtype']}**: {settings['requests']} requests, {settings['concurrency']} at a"
            f" time, one picture of {settings['image']} each, {settings['new_tokens']} new tokens.\n\n"
            + "\n".join(lines)
            + f"\n\n`{path.name}`: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB;"
            f" {machine['date']}; {versions}."
        )
    return "\n\n".join(parts)


def page(text: str) -> str:
    """The page with its tables made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.split(END)[1]}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    most = row["kv_tokens"]
    return (
        "stock vLLM" if row["arm"] == "stock" else f"budget {row['budget']:g}",
        f"{row['visual_tokens']:,}",
        f"{row['requests_per_s']:.2f}",
        f"{row['ttft_s']:.2f}",
        f"{row['ttft_first_s']:.2f} to {row['ttft_last_s']:.2f}",
        f"{1000 * row['token_s']:.0f}",
        "" if most is None else f"{row['kv_peak'] * most:,.0f}",
    )


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
