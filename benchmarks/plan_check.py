"""Compares what `hired plan` predicts with what `hired bench` measured, and writes the tables into `docs/plan.md`.

    hired plan SHAPE --calibrate --context 32 --new-tokens 15 -o benchmarks/plan-NAME.json  # beside speed-NAME.json
    python benchmarks/plan_check.py                                  # exit code 1 where a prediction is too far off

Tokens and memory follow from the architecture. Times follow from the rates that `--calibrate` measured on the same
machine, which `plan-NAME.json` holds; without that file there are none.
"""

import json
import sys
from pathlib import Path
from typing import Any

from hired.core.budget import EncoderBudget
from hired.costs.estimate import Costs, Estimator, Request
from hired.costs.rates import Rates
from hired.costs.shapes import shape_config

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "plan.md"
START, END = "<!-- written by benchmarks/plan_check.py -->", "<!-- end -->"
MEMORY, TTFT = 0.10, 0.25
"""How far off a prediction may be."""


def predicted(speed: dict[str, Any], plan: dict[str, Any] | None, row: dict[str, Any]) -> Costs:
    """What `hired plan` says of the arm of a row."""
    # Decoding was timed for one batch size; the rest holds for all.
    rates = None if plan is None else Rates(**plan["rates"])
    request = Request(
        sizes=(tuple(row["image"]),),
        batch=row["batch"],
        context=row["prompt_tokens"] - row["tokens"],
        new_tokens=speed["settings"]["new_tokens"],
        dtype=speed["machine"]["dtype"],
        gguf=speed["settings"].get("gguf_type"),
        device="cpu" if speed["machine"]["device"] == "cpu" else "cuda",
        encoder_budget=EncoderBudget.parse(row["encoder_budget"]),
    )
    return Estimator(shape_config(speed["subject"]), request, rates).at(row["budget"])


def table(name: str, speed: dict[str, Any], plan: dict[str, Any] | None) -> tuple[list[str], list[str]]:
    """(lines of the Markdown table of one result file, what is too far off in it)."""
    head = ["picture", "batch", "budget", "tokens", "memory, GB", "measured", "off"]
    if plan is not None:
        head += ["first token, s", "measured", "off", "tokens/s", "measured", "off"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    far = []
    for row in speed["results"]:
        if row["status"] != "ok":
            continue
        costs = predicted(speed, plan, row)
        if costs.tokens != row["tokens"]:
            far.append(f"{name}, budget {row['budget']}: {costs.tokens} tokens predicted, {row['tokens']} kept")
        narrow = row["encoder_budget"]
        budget = f"{row['budget']:g}" + (f", encoder x {narrow:g}" if narrow else "")
        cells = ["x".join(map(str, row["image"])), f"{row['batch']}", budget, f"{costs.tokens:,}"]
        peak = row["peak_memory_mb"]
        cells += _pair(costs.memory_bytes / 1e9, None if peak is None else peak / 1e3)
        if plan is not None:
            same = plan["request"]["batch"] == row["batch"]
            cells += _pair(costs.ttft_s, row["ttft_s"])
            cells += _pair(costs.tokens_per_s if same else None, row["tokens_per_s"] if same else None)
        lines.append("| " + " | ".join(cells) + " |")
        for what, value, real, most in (
            ("memory", costs.memory_bytes / 1e6, peak, MEMORY),
            ("first token", costs.ttft_s, row["ttft_s"], TTFT),
        ):
            if value and real and abs(value / real - 1) > most:
                far.append(f"{name}, {cells[0]}, batch {row['batch']}, budget {budget}: {what} {value / real - 1:+.0%}")
    return lines, far


def _pair(value: float | None, real: float | None) -> list[str]:
    off = f"{value / real - 1:+.0%}" if value and real else ""
    return ["" if value is None else f"{value:,.2f}", "" if real is None else f"{real:,.2f}", off]


def main() -> int:
    """Writes the tables; 1 where a prediction is too far off or there is nothing to compare."""
    parts, far = [], []
    for path in sorted([*HERE.glob("speed-*.json"), *HERE.glob("gguf-*.json")]):
        speed = json.loads(path.read_text())
        rates = path.with_name(path.name.replace("speed-", "plan-", 1))
        plan = json.loads(rates.read_text()) if rates != path and rates.exists() else None
        rows = speed["results"]
        if plan is None and rows and all(row["peak_memory_mb"] is None for row in rows):
            continue  # neither times nor memory to compare
        lines, problems = table(path.name, speed, plan)
        machine = speed["machine"]
        place = machine["cpu"] if machine["device"] == "cpu" else machine["device"]
        source = f"`{path.name}`" + (f", rates from `{rates.name}`" if plan else ", no rates")
        threads = f", {machine['threads']} threads" if machine["device"] == "cpu" else ""
        llm = speed["settings"].get("gguf_type")
        dtype = machine["dtype"] if llm is None else f"{llm} in llama.cpp, encoder {machine['dtype']},"
        parts += [f"**{speed['subject']}**, {dtype} on {place}{threads} ({source}):", "", *lines, ""]
        far += problems
    if not parts:
        print("no speed-*.json to compare with", file=sys.stderr)
        return 1
    before, _, rest = PAGE.read_text().partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text("\n".join([before + START, "", *parts, END + after]))
    print(*far, sep="\n")
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
