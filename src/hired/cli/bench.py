"""``hired bench``: measure, print, write."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hired import files
from hired.bench import Arm, Settings
from hired.bench.quiet import crowded
from hired.cli import output
from hired.loading.strangers import strangers
from hired.machine import LLAMA, versions

if TYPE_CHECKING:
    from hired.bench.rows import Row

__all__ = ["run"]


def run(settings: Settings, out: Sequence[Path], as_json: bool) -> None:
    """Measure, print tables or one JSON object, and write the files asked for.

    Raises:
        HiredError: The settings or the model will not do, or a file cannot be written.
    """
    settings.check()
    files.check_results(out)

    from hired.bench.run import bench

    # A shape is ours: what goes wrong with it is a mistake here, not in somebody's checkpoint.
    guard = contextlib.nullcontext() if settings.model is None else strangers(settings.model, "measure")
    with _progress() as tell, guard:
        found = bench(settings, tell, output.warn_length)
        result = {**found, "versions": versions(*(LLAMA if settings.llama else ()))}
    output.deliver(
        lambda: print(json.dumps(result)) if as_json else _print(result),
        *(partial(_write, path, result) for path in out),
    )


def _write(path: Path, result: dict[str, Any]) -> None:
    """Write the rows (``.json``) or the plot."""
    if path.suffix.lower() != ".json":
        from hired.bench.plot import plot

        plot(result["results"], path, _title(result))
        return
    files.write_json(path, result)


def _title(result: dict[str, Any]) -> str:
    """What was measured, on what."""
    machine, rows = result["machine"], result["results"]
    device = machine["cpu"] if machine["device"] == "cpu" else machine["device"]
    images = list(dict.fromkeys("x".join(map(str, row["image"])) for row in rows))
    picture = f", {images[0]}" if len(images) == 1 else ""
    threads = f", {machine['threads']} threads" if machine["device"] == "cpu" else ""
    return f"{result['subject']}{picture}, {_dtype(result)} on {device}{threads}"


def _dtype(result: dict[str, Any]) -> str:
    """Of what is measured: where llama.cpp runs the LLM, its file's type or name, and the encoder's."""
    settings, dtype = result["settings"], result["machine"]["dtype"]
    # Results of before llama.cpp could be measured have neither.
    llm = settings.get("gguf_type") or (settings.get("gguf") and Path(settings["gguf"]).name)
    return f"{llm} in llama.cpp, encoder {dtype}" if llm else str(dtype)


def _print(result: dict[str, Any]) -> None:
    """The tables for people."""
    rows: list[Row] = result["results"]
    several = len({(tuple(row["image"]), row["batch"]) for row in rows}) > 1
    first = ("budget", "tokens", "preprocess", "encode", "select", "prefill", "first token", "lowest - highest")
    speed = ("sooner", "allowed", "of allowed", "FLOPs")
    cells = []
    for row in rows:
        low, high = row["range"].get("ttft_s", [None, None])
        spread = "" if low is None else f"{_seconds(low)} - {_seconds(high)}"
        stages = (row["preprocess_s"], row["encode_s"], row["select_s"], row["prefill_s"])
        total = _seconds(row["ttft_s"]) if row["status"] == "ok" else row["status"]
        ratios = (
            _times(row["speedup"]),
            _times(row["allowed_speedup"]),
            _percent(row["speedup_of_allowed"]),
            _times(row["flops_speedup"]),
        )
        cells.append((*_names(row, several), f"{row['tokens']:,}", *map(_seconds, stages), total, spread, *ratios))
    head = ("picture", "batch") if several else ()
    output.table((*head, *first, *speed), cells, f"{_title(result)}: time to first token, s")
    print()
    rates = (
        "budget",
        "decode, s",
        "tokens/s",
        "of allowed",
        "peak MB",
        "loaded MB",
        "KV cache MB",
        "choosing / encode",
    )
    cells = [
        (
            *_names(row, several),
            _seconds(row["decode_s"]),
            "" if row["tokens_per_s"] is None else f"{row['tokens_per_s']:,.2f}",
            _percent(row["tokens_per_s_of_allowed"]),
            _megabytes(row["peak_memory_mb"]),
            _megabytes(row["loaded_memory_mb"]),
            "" if row["kv_cache_bytes"] is None else f"{row['kv_cache_bytes'] / 1e6:,.1f}",
            _percent(row["choosing_share"], 2),
        )
        for row in rows
    ]
    output.table((*head, *rates), cells, "Whole answers, and memory")
    for line in filter(None, (result["note"], _others(result))):
        print(f"\n{line}")


def _others(result: dict[str, Any]) -> str:
    """How much of the machine other programs took, where llama.cpp was measured."""
    used = result.get("others_cores", {}).get("during")
    if used is None:
        return ""
    cores = result["machine"]["cores"]
    wrong = crowded(used, result["machine"]["threads"], cores)
    return f"Other programs used {used:.2f} of {cores} cores meanwhile" + (
        ": llama.cpp is far slower then than on a quiet machine, and these numbers say little." if wrong else "."
    )


def _names(row: Row, several: bool) -> tuple[str, ...]:
    """Which scene, where there are several, and which arm."""
    arm = Arm(row["budget"], row["encoder_budget"]).name
    return ("x".join(map(str, row["image"])), str(row["batch"]), arm) if several else (arm,)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def _percent(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{100 * value:.{digits}f} %"


def _megabytes(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """What is being done, on standard error; nothing where that is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda words: None
        return
    from rich.console import Console

    with Console(stderr=True).status("Starting") as status:
        yield status.update
