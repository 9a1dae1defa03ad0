"""Tables of speed and memory from `speed-*.json`: the README's, and the page `docs/speed.md`.

python benchmarks/speed_table.py      # writes docs/speed.md, prints the README's table
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "speed.md"
BUDGETS = (1.0, 0.4, 0.2, 0.1)
IN_README = ("speed-0.5b-cpu.json", "speed-7b-cpu.json", "speed-llava-next-7b-gpu.json")
PAPER = {1.0: (19.49, 0.49, 16.04), 0.4: (6.91, 1.40, 14.33), 0.2: (4.21, 2.30, 13.76)}
"""HiRED paper, LLaVA-NeXT-7B in fp16 on a Tesla P40, batch 1: seconds to the first token, tokens/s, peak GB."""
INTRODUCTION = """# Speed and memory

Written by `python benchmarks/speed_table.py` from the files in [`benchmarks/`](../benchmarks/README.md); not edited by
hand. How it was measured, and what the columns mean: [`hired bench`](bench.md).
"""


def results() -> list[Path]:
    """The committed result files of `hired bench`."""
    return sorted(HERE.glob("speed-*.json"), key=lambda path: path.stem)


def table(paths: list[Path] | None = None) -> str:
    """The README's Markdown table, a column a budget: the shipped model's exact match, then speed and memory by file.

    Of several batches the smallest and the largest count.
    """
    lines = ["| | " + " | ".join(f"{budget:.0%}" for budget in BUDGETS) + " |", "|---" * (len(BUDGETS) + 1) + "|"]
    forms = json.loads((HERE / "forms.json").read_text())["results"]
    exact = {row["budget"]: 100 * row["exact_match"] for row in forms if row["method"] == "hired"}
    lines.append(_line("exact match of the shipped model, %", [_number(exact.get(b), 1) for b in BUDGETS]))
    for content in _contents([HERE / name for name in IN_README] if paths is None else paths):
        batches = sorted({row["batch"] for row in content["results"]})
        for batch in batches[:: max(len(batches) - 1, 1)]:
            name = f"{content['subject']}, {_device(content)}" + (f", batch {batch}" if len(batches) > 1 else "")
            lines += _in_readme(name, [row for row in content["results"] if row["batch"] == batch])
    for index, what in enumerate(("first token, s", "tokens/s", "peak memory, GB")):
        cells = [_number(PAPER[b][index], 2) if b in PAPER else "" for b in BUDGETS]
        lines.append(_line(f"the paper's LLaVA-NeXT-7B, Tesla P40, fp16: {what}", cells))
    return "\n".join(lines)


def _in_readme(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """The README's lines of one batch."""
    plain = {row["budget"]: row for row in rows if row["encoder_budget"] is None}
    narrow = {row["budget"]: row for row in rows if row["encoder_budget"] is not None}
    digits = 2 if plain[1.0]["ttft_s"] > 1 else 3
    lines = [_line(f"{name}: first token, s", [_cell(plain.get(b), "ttft_s", digits) for b in BUDGETS])]
    if narrow:
        ratio = next(iter(narrow.values()))["encoder_budget"]
        cells = [_cell(narrow.get(b), "ttft_s", digits) for b in BUDGETS]
        lines.append(_line(f"{name}, `encoder_budget={ratio:g}`: first token, s", cells))
    lines.append(_line(f"{name}: tokens/s", [_cell(plain.get(b), "tokens_per_s", 2) for b in BUDGETS]))
    memory = [_cell(plain.get(b), "peak_memory_mb", 2, 1e3) for b in BUDGETS]
    return [*lines, _line(f"{name}: peak memory, GB", memory)] if any(memory) else lines


def page(paths: list[Path] | None = None) -> str:
    """The page with every row of every file, and what they were measured on."""
    parts = [INTRODUCTION]
    for path, content in zip(results() if paths is None else paths, _contents(paths), strict=True):
        machine, made = content["machine"], content["versions"]
        parts.append(f"## {_name(content)}\n\n{_times(content['results'])}\n\n{_rates(content['results'])}\n")
        place = f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {machine['memory_gb']} GB"
        gpu = "" if machine["device"] == "cpu" else f"{machine['device']}, {machine['gpu_memory_gb']} GB; "
        versions = ", ".join(f"{key} {value}" for key, value in made.items())
        run = f"{machine['dtype']}, {machine['date']}; {content['settings']['repeats']} repeats"
        note = f" {content['note']}" if content["note"] else ""
        parts.append(f"`{path.name}`: {gpu}{place}; {run}; {versions}.{note}\n")
    return "\n".join(parts)


def _contents(paths: list[Path] | None) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (results() if paths is None else paths)]


def _device(content: dict[str, Any]) -> str:
    device: str = content["machine"]["device"]
    return "CPU" if device == "cpu" else device


def _name(content: dict[str, Any]) -> str:
    images = list(dict.fromkeys("x".join(map(str, row["image"])) for row in content["results"]))
    size = images[0] if len(images) == 1 else "picture sizes"
    llm = content["settings"].get("gguf_type")
    dtype = content["machine"]["dtype"] + (f", LLM {llm} in llama.cpp" if llm else "")
    return f"{content['subject']}, {size}, {_device(content)}, {dtype}"


def _times(rows: list[dict[str, Any]]) -> str:
    """Time to first token: stages, range, and what was allowed."""
    head = ("budget", "tokens", "encode", "select", "prefill", "first token, s", "range", "sooner")
    head = (*_scene_head(rows), *head, "allowed", "of allowed", "FLOPs allow")
    lines = [_line(*head[:1], list(head[1:])), "|---" * len(head) + "|"]
    for row in rows:
        low, high = row["range"].get("ttft_s", (None, None))
        cells = [
            *_scene(rows, row),
            _budget(row),
            f"{row['tokens']:,}",
            *(_cell(row, key, 3) for key in ("encode_s", "select_s", "prefill_s")),
            _cell(row, "ttft_s", 3) or row["status"],
            "" if low is None else f"{low:.3f} to {high:.3f}",
            *(_cell(row, key, 2) for key in ("speedup", "allowed_speedup", "speedup_of_allowed", "flops_speedup")),
        ]
        lines.append(_line(cells[0], cells[1:]))
    return "\n".join(lines)


def _rates(rows: list[dict[str, Any]]) -> str:
    """Whole answers and memory."""
    head = ("budget", "decode, s", "tokens/s", "of allowed", "peak MB", "loaded MB", "KV cache MB")
    head = (*head, "choosing / encode", "choosing, ms")
    head = (*_scene_head(rows), *head)
    lines = [_line(*head[:1], list(head[1:])), "|---" * len(head) + "|"]
    for row in rows:
        cells = [
            *_scene(rows, row),
            _budget(row),
            _cell(row, "decode_s", 3) or row["status"],
            _cell(row, "tokens_per_s", 2),
            _cell(row, "tokens_per_s_of_allowed", 2),
            _cell(row, "peak_memory_mb", 0),
            _cell(row, "loaded_memory_mb", 0),
            _cell(row, "kv_cache_bytes", 1, 1e6),
            "" if row["choosing_share"] is None else f"{row['choosing_share']:.2%}",
            _number(row.get("choosing_s"), 2, 1e-3),
        ]
        lines.append(_line(cells[0], cells[1:]))
    return "\n".join(lines)


def _scene_head(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    return ("picture", "batch") if len({(tuple(row["image"]), row["batch"]) for row in rows}) > 1 else ()


def _scene(rows: list[dict[str, Any]], row: dict[str, Any]) -> tuple[str, ...]:
    return ("x".join(map(str, row["image"])), str(row["batch"])) if _scene_head(rows) else ()


def _budget(row: dict[str, Any]) -> str:
    share = f"{row['budget']:.0%}" if row["budget"] <= 1 else f"{row['budget']} tokens"
    return share if row["encoder_budget"] is None else f"{share}, encoder x {row['encoder_budget']:g}"


def _line(first: str, cells: list[str]) -> str:
    return f"| {' | '.join([first, *cells])} |"


def _cell(row: dict[str, Any] | None, key: str, digits: int, unit: float = 1) -> str:
    if row is None:
        return ""
    return _number(row[key], digits, unit) if row[key] is not None or row["status"] == "ok" else row["status"]


def _number(value: float | None, digits: int, unit: float = 1) -> str:
    return "" if value is None else f"{value / unit:,.{digits}f}"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(table())
