"""What rows say, for people: a table, the conclusion, the line of code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hired.agreeing.rows import UNTOUCHED, Row

__all__ = ["code", "conclusion", "table", "title"]


def title(rows: Sequence[Row], model: str) -> str:
    """What was measured."""
    questions, pictures = rows[0]["n"], rows[0]["pictures"]
    return f"{model}: {questions:,} question{_s(questions)} about {pictures:,} picture{_s(pictures)}"


def code(row: Row) -> str:
    """The line that keeps to a row."""
    method = "" if row["method"] == "hired" else f', method="{row["method"]}"'
    return f"inputs = hired.reduce(model, inputs, budget={row['budget']}{method})"


def conclusion(rows: Sequence[Row], chosen: Row | None, agree: float, measure: str) -> list[str]:
    """What follows from the rows, in sentences.

    Args:
        rows: All of them.
        chosen: What `hired.agreeing.rows.smallest` made of them.
        agree: The agreement asked for, 0..1.
        measure: One of `hired.agreeing.MEASURES`.
    """
    asked = f"{100 * agree:g} % {'same answers' if measure == 'exact' else 'similarity'}"
    if chosen is None:
        best = max(rows[1:], key=lambda row: row[measure])  # type: ignore[literal-required]
        at = f"{best['method']} at {best['budget']} comes to {_percent(best[measure])}"  # type: ignore[literal-required]
        return [f"No budget measured keeps {asked}; {at}. Try larger budgets (--budgets), or ask for less (--agree)."]
    low, high = chosen[f"{measure}_interval"]  # type: ignore[literal-required]
    lines = [
        f"The smallest budget that keeps {asked} is {chosen['budget']} with {chosen['method']}:"
        f" {_percent(chosen[measure])} (95 % interval {_percent(low)} to {_percent(high)}),"  # type: ignore[literal-required]
        f" {chosen['tokens']:,.0f} of {rows[0]['tokens']:,.0f} visual tokens",
        f"    {code(chosen)}",
    ]
    if low < agree:
        lines.append(f"The interval reaches below {100 * agree:g} %: more pictures (--limit) would tell more surely.")
    return lines


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """(columns, cells) of the table for people; columns that hold nothing are left out."""
    makers: dict[str, Callable[[Row], str]] = {
        "method": lambda row: row["method"],
        "budget": lambda row: str(row["budget"]),
        "tokens": lambda row: f"{row['tokens']:,.1f}",
        "same answer": lambda row: _percent(row["exact"]),
        "95 % interval": lambda row: (
            "" if row["method"] == UNTOUCHED else " - ".join(map(_percent, row["exact_interval"]))
        ),
        "similarity": lambda row: _percent(row["similar"]),
        "log p a token": lambda row: f"{row['log_probability']:.3f}",
        "accuracy": lambda row: "" if row["accuracy"] is None else _percent(row["accuracy"]),
        "first token, s": lambda row: "" if row["ttft_s"] is None else f"{row['ttft_s']:.3f}",
        "tokens/s": lambda row: "" if row["tokens_per_s"] is None else f"{row['tokens_per_s']:,.1f}",
        "KV cache, MB": lambda row: "" if row["kv_cache_bytes"] is None else f"{row['kv_cache_bytes'] / 1e6:,.1f}",
        "peak, MB": lambda row: "" if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 1e6:,.0f}",
    }
    columns = {name: [make(row) for row in rows] for name, make in makers.items()}
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    return list(filled), [list(cells) for cells in zip(*filled.values(), strict=True)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
