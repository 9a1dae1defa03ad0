"""llama.cpp on the kept tokens beside PyTorch in bfloat16, one shape in one run: `gguf-*.json`, and its page's table.

    python benchmarks/gguf_speed.py --shape llava-next-0.5b      # a quarter of an hour on two quiet cores
    python benchmarks/gguf_speed.py --shape llava-next-7b        # an hour, 18 GB of memory and 5 GB of disk
    python benchmarks/gguf_speed.py --table                      # writes the page's table again, measures nothing

Each engine is measured by `hired bench` in a process of its own, so that neither's weights are in the other's memory:
llama.cpp first, which says so and ends where other programs use the cores. Weights are random. Nothing is written where
others used the cores meanwhile. The exit code is 1 where a target is missed, and each that is missed is printed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hired import files
from hired.bench.quiet import crowded

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "gguf.md"
START, END = "<!-- written by benchmarks/gguf_speed.py -->", "<!-- end -->"
BUDGETS = {"llama": "1,0.4,0.2,0.1", "torch": "1,0.2"}
REPEATS = {"llava-next-7b": 2}
SOONER, PEAK_GB, OF_FLOPS, DECODE = 4.5, 5.5, 0.95, 2.0
"""Targets of the 7B shape at a 20 % budget: time to first token against all tokens, peak memory, the former over what
FLOPs allow, and tokens/s of decoding against PyTorch's."""


def bench(options: list[str]) -> dict[str, Any]:
    """What `hired bench` measures in a process of its own.

    Raises:
        SystemExit: it ended with an error, which it has printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, "-m", "hired.cli", "bench", "--device", "cpu", *options, "-o", str(path)]
        if subprocess.run(command).returncode:
            sys.exit(1)
        found: dict[str, Any] = json.loads(path.read_text())
    return found


def measure(shape: str, type: str, dtype: str, repeats: int, more: list[str]) -> dict[str, Any]:
    """The content of a result file: what llama.cpp did as `hired bench` has it, and PyTorch's under `torch`."""
    common = ["--shape", shape, "--dtype", dtype, "--repeats", str(repeats), *more]
    llama = bench([*common, "--budgets", BUDGETS["llama"], "--gguf-type", type])
    alone = [option for option in common if option != "--busy"]
    return {**llama, "torch": bench([*alone, "--budgets", BUDGETS["torch"]])}


def quiet(found: dict[str, Any]) -> bool:
    """Whether other programs left llama.cpp's threads their cores."""
    machine = found["machine"]
    return not crowded(found["others_cores"]["during"], machine["threads"], machine["cores"])


def missed(found: dict[str, Any]) -> list[str]:
    """The targets that a result misses."""
    row, beside = _at(found, 0.2), _at(found["torch"], 0.2)
    rate, other = decode_rate(found, row), decode_rate(found["torch"], beside)
    checks = [
        ("first token sooner by", row["speedup"], SOONER, True),
        ("peak memory, GB", row["peak_memory_mb"] and row["peak_memory_mb"] / 1e3, PEAK_GB, False),
        ("of what FLOPs allow", _ratio(row["speedup"], row["flops_speedup"]), OF_FLOPS, True),
        ("decoding over PyTorch's", _ratio(rate, other), DECODE, True),
    ]
    return [
        f"{found['subject']}, {found['settings']['gguf_type']}, 20 %: {what} {value:.2f}, the target is {goal:g}"
        for what, value, goal, more in checks
        if value is not None and (value < goal if more else value > goal)
    ]


def decode_rate(found: dict[str, Any], row: dict[str, Any]) -> float | None:
    """Tokens/s behind the first token."""
    return _ratio(found["settings"]["new_tokens"] - 1, row["decode_s"])


def table(results: list[dict[str, Any]]) -> str:
    """The page's Markdown table, and what it was measured on."""
    head = ("shape", "LLM", "budget", "prompt", "first token, s", "sooner", "of what FLOPs allow", "decoding, tokens/s")
    head = (*head, "peak memory, GB")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for found in results:
        for part in (found, found["torch"]):
            llm = found["settings"]["gguf_type"] if part is found else f"{part['machine']['dtype']}, PyTorch"
            lines += [_line(part, row, llm) for row in part["results"]]
    notes = []
    for found in results:
        on, made = found["machine"], found["versions"]
        notes.append(
            f"{found['subject']}: {on['cpu']}, {on['threads']} threads, encoder in {on['dtype']},"
            f" {found['settings']['repeats']} repeats, {on['date']}; torch {made['torch']}, transformers"
            f" {made['transformers']}, llama-cpp-python {made['llama-cpp-python']}. Random weights."
        )
    return "\n".join([*lines, "", *notes])


def _line(part: dict[str, Any], row: dict[str, Any], llm: str) -> str:
    peak = row["peak_memory_mb"]
    cells = [
        part["subject"],
        llm,
        f"{row['budget']:.0%}",
        f"{row['prompt_tokens']:,}",
        *(_cell(row[name], digits) for name, digits in (("ttft_s", 2), ("speedup", 2))),
        _cell(_ratio(row["speedup"], row["flops_speedup"]), 2),
        _cell(decode_rate(part, row), 1),
        _cell(None if peak is None else peak / 1e3, 2),
    ]
    return f"| {' | '.join(cells)} |"


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under


def _at(found: dict[str, Any], budget: float) -> dict[str, Any]:
    return next(row for row in found["results"] if row["budget"] == budget)


def write_page(page: Path, folder: Path) -> None:
    """Puts the table of all result files of a folder into the page."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("gguf-*.json"))]
    before, _, rest = page.read_text().partition(START)
    made = [table(results), ""] if results else []
    page.write_text("\n".join([before + START, "", *made, END + rest.partition(END)[2]]))


def main(arguments: list[str] | None = None) -> int:
    """Measures, writes the file and the page; 1 where a target is missed or the machine was not quiet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llava-next-0.5b")
    parser.add_argument("--type", default="q4_k_m")
    parser.add_argument("--dtype", default="bfloat16", help="of PyTorch, and of the encoder beside llama.cpp")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--image", default="1344x1344")
    parser.add_argument("--busy", action="store_true", help="try the script where the machine is not quiet")
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args(arguments)
    if options.table:
        write_page(PAGE, HERE)
        return 0
    repeats = options.repeats or REPEATS.get(options.shape, 3)
    warmup = ["--warmup", "0"] if options.shape in REPEATS else []
    more = ["--image", options.image, *warmup, *(["--busy"] if options.busy else [])]
    found = measure(options.shape, options.type, options.dtype, repeats, more)
    if not quiet(found) and not options.busy:
        used = found["others_cores"]["during"]
        print(f"other programs used {used} cores meanwhile: nothing is written", file=sys.stderr)
        return 1
    name = options.shape.removeprefix("llava-next-")
    files.write_json(options.out or HERE / f"gguf-{name}-{options.type}-cpu.json", found)
    if options.out is None:
        write_page(PAGE, HERE)
    short = missed(found) if options.shape == "llava-next-7b" else []
    print(*short, sep="\n")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
