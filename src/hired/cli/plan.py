"""``hired plan``: what a budget costs, before anything is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hired import files
from hired.cli import output
from hired.errors import BudgetError, HiredError
from hired.loading.strangers import strangers
from hired.machine import versions
from hired.options import full_dtype, positive

if TYPE_CHECKING:
    from hired.costs.estimate import Costs, Estimator
    from hired.costs.rates import Rates

__all__ = ["Settings", "run"]

BYTES = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0}


@dataclass(frozen=True)
class Settings:
    """The options of ``hired plan``, as typed; see ``hired plan --help``."""

    model: str
    image: str = "1344x1344"
    images: int = 1
    batch: int = 1
    context: int = 2048
    new_tokens: int = 256
    budgets: tuple[int | float | str, ...] = (1, 0.4, 0.2, 0.1)
    encoder_budget: float | None = None
    device: str = "auto"
    dtype: str = "auto"
    memory: str | None = None
    ttft: str | None = None
    trust_remote_code: bool = False
    calibrate: bool = False
    tflops: float | None = None
    bandwidth: float | None = None
    as_json: bool = False


@dataclass(frozen=True)
class _Asked:
    """The settings that need no model, read and checked."""

    memory: float | None
    ttft: float | None
    device: str


def run(settings: Settings, out: Sequence[Path] = ()) -> None:
    """Print a table or one JSON object, and write the files asked for.

    Raises:
        HiredError: Settings that will not do, or a model whose costs are not known.
    """
    from hired.bench.settings import parse_sizes
    from hired.core.budget import Budget, EncoderBudget

    asked = _check(settings, out)
    for budget in settings.budgets:
        Budget.parse(budget)
    encoder_budget = EncoderBudget.parse(settings.encoder_budget)
    sizes = parse_sizes(settings.image) * settings.images
    from hired.costs.estimate import Estimator, Request
    from hired.costs.shapes import config_of

    config = config_of(settings.model, settings.trust_remote_code)
    dtype, gguf = _dtype(settings, config, asked.device)
    request = Request(
        sizes=sizes,
        batch=settings.batch,
        context=settings.context,
        new_tokens=settings.new_tokens,
        dtype=dtype,
        gguf=gguf,
        device="cuda" if asked.device.startswith("cuda") else "cpu",
        encoder_budget=encoder_budget,
    )
    with strangers(settings.model, "work out the costs of"):
        estimator = Estimator(config, request)
        whole = estimator.at(1)
        estimator.rates = _rates(settings, asked, estimator, whole.prompt_tokens)
        result = _result(settings, asked, estimator)
    output.warn_length(max(row["length"] for row in result["results"]), estimator.max_length)
    output.deliver(
        lambda: print(json.dumps(result)) if settings.as_json else _print(settings, estimator, result),
        *(partial(files.write_json, path, result) for path in out),
    )


def _check(settings: Settings, out: Sequence[Path]) -> _Asked:
    """What can be wrong before anything is read."""
    given = settings.tflops is not None, settings.bandwidth is not None
    if any(given) and not all(given):
        raise HiredError("--tflops and --bandwidth belong together: give both")
    if all(given) and settings.calibrate:
        raise HiredError("--calibrate measures what --tflops and --bandwidth give by hand: leave one out")
    if settings.ttft is not None and not (settings.calibrate or all(given)):
        raise HiredError("--ttft needs to know how fast the machine is: add --calibrate, or --tflops and --bandwidth")
    if not settings.budgets:
        raise BudgetError("no budgets: give one or more, such as --budgets 1,0.2")
    for path in out:
        if path.suffix.lower() != ".json":
            raise HiredError(f"cannot write {files.one_line(path)}: name a .json file")
        files.check_writable(path)
    memory = None if settings.memory is None else _memory(settings.memory)
    ttft = None if settings.ttft is None else _seconds(settings.ttft)
    if settings.calibrate and _gguf(settings) is not None:
        raise HiredError(
            f"--calibrate times PyTorch, and llama.cpp runs {settings.dtype}: give --tflops and --bandwidth, or measure"
            " with hired bench --gguf-type"
        )
    return _Asked(memory, ttft, _device(settings))


def _gguf(settings: Settings) -> str | None:
    """The type of a GGUF file, where `--dtype` names one."""
    from hired.costs.quants import TYPES

    name = settings.dtype.strip().lower()
    return name if name in TYPES else None


def _memory(text: str) -> float:
    """`8GB`, `8GiB`, `800 MB` in bytes."""
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([KMGT]?I?)B?", text.strip().upper())
    value = 0.0 if match is None else float(match[1]) * BYTES.get(match[2], 0)
    return positive(value, 1e18, f"memory {text!r}: use a number of GB or GiB, such as 8GB")


def _seconds(text: str) -> float:
    """`2s`, `500ms`, `2` in seconds."""
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(ms|s|min|)", text.strip().lower())
    value = 0.0 if match is None else float(match[1]) * SECONDS[match[2] or "s"]
    return positive(value, 1e9, f"time {text!r}: use seconds, such as 2s or 500ms")


def _device(settings: Settings) -> str:
    """The device whose memory is planned, and that is measured with --calibrate."""
    kind = settings.device.partition(":")[0]
    if kind not in ("auto", "cpu", "cuda"):
        raise HiredError(f"device {settings.device!r} cannot be planned for: use auto, cpu or cuda")
    if kind == "cpu" or (kind == "auto" and _gguf(settings) is not None):  # where llama.cpp runs the LLM
        return "cpu"
    import torch

    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if settings.calibrate and not torch.cuda.is_available():
        raise HiredError("there is no CUDA device to measure: leave --calibrate out, or give --tflops and --bandwidth")
    return settings.device


def _dtype(settings: Settings, config: Any, device: str) -> tuple[str, str | None]:
    """(the full name of the dtype, the GGUF type of the LLM if it has one).

    `auto`, and what goes with a GGUF file, is the checkpoint's own dtype, and for a shape what a device is fast in.
    """
    gguf = _gguf(settings)
    if settings.dtype != "auto" and gguf is None:
        return full_dtype(settings.dtype), None
    if settings.model == "tiny":
        return "float32", gguf
    own = str(getattr(config, "dtype", None)).removeprefix("torch.")
    if own != "None":
        return own, gguf
    return ("bfloat16" if device == "cpu" else "float16"), gguf


def _rates(settings: Settings, asked: _Asked, estimator: Estimator, length: int) -> Rates | None:
    from hired.cli.waiting import progress
    from hired.costs.rates import by_hand, calibrate

    request = estimator.request
    if settings.tflops is not None and settings.bandwidth is not None:
        given = settings.tflops, settings.bandwidth
        return by_hand(estimator.config, request.dtype, request.batch, *given, request.gguf)
    if not settings.calibrate:
        return None
    with progress("Measuring this machine"):
        return calibrate(estimator.config, request.dtype, asked.device, batch=request.batch, length=length)


def _result(settings: Settings, asked: _Asked, estimator: Estimator) -> dict[str, Any]:
    import torch

    from hired.machine import machine

    request, fits = estimator.request, {}
    if asked.memory is not None:
        found = estimator.largest(estimator.fits_memory(asked.memory))
        fits["memory"] = {"limit_bytes": asked.memory, "costs": found and found.as_dict()}
    if asked.ttft is not None:
        limit = asked.ttft
        found = estimator.largest(lambda costs: costs.ttft_s is not None and costs.ttft_s <= limit)
        fits["ttft"] = {"limit_s": limit, "costs": found and found.as_dict()}
    rates = estimator.rates
    return {
        "model": settings.model,
        "request": asdict(request),
        "partitions": estimator.partitions,
        "max_positions": estimator.max_length,
        "beside_bytes": estimator.beside_bytes,
        "results": [estimator.at(budget).as_dict() for budget in settings.budgets],  # type: ignore[arg-type]
        "fits": fits,
        "rates": None if rates is None else rates.as_dict(),
        "settings": asdict(settings),
        "machine": machine(SimpleNamespace(device=torch.device(asked.device), dtype=request.dtype))
        if settings.calibrate
        else None,
        "versions": versions(),
    }


def _print(settings: Settings, estimator: Estimator, result: dict[str, Any]) -> None:
    """The table for people, the largest budgets that fit, and what the numbers mean."""
    request, rows = estimator.request, [estimator.at(row["budget"]) for row in result["results"]]
    count = len(request.sizes)
    pictures = f"{count} picture{'s' if count > 1 else ''} of {settings.image}"
    dtype = request.dtype if request.gguf is None else f"{request.gguf} (encoder {request.dtype})"
    print(
        f"{settings.model}, {dtype} on {request.device}: {pictures}, {request.context:,} text tokens,"
        f" {request.new_tokens:,} new tokens, batch {request.batch}"
    )
    print(f"Weights {_gb(estimator.weights_bytes)}\n")
    columns = ["budget", "tokens", "prompt", "KV cache", "activations", "memory", "TFLOPs"]
    timed = estimator.rates is not None
    output.table([*columns, "first token, s", "tokens/s"] if timed else columns, [_cells(row, timed) for row in rows])
    print()
    for words, found in _fitting(estimator, result["fits"]):
        print(f"{words}: {found}")
    for line in _notes(estimator, rows):
        print(line)


def _cells(row: Costs, timed: bool) -> list[str]:
    cells = [
        f"{row.budget:g}",
        f"{row.tokens:,}",
        f"{row.prompt_tokens:,}",
        _gb(row.kv_bytes),
        _gb(row.activation_bytes),
        _gb(row.memory_bytes),
        f"{row.flops / 1e12:,.2f}",
    ]
    return [*cells, f"{row.ttft_s:,.3f}", f"{row.tokens_per_s:,.2f}"] if timed else cells


def _fitting(estimator: Estimator, fits: dict[str, Any]) -> list[tuple[str, str]]:
    lines = []
    for kind, limit in (("memory", "limit_bytes"), ("ttft", "limit_s")):
        if kind not in fits:
            continue
        value = fits[kind][limit]
        name = f"Largest budget within {_gb(value) if kind == 'memory' else f'{value:g} s'}"
        costs = fits[kind]["costs"]
        if costs is None:
            found = "none; not even 2 tokens per image fit"
        elif costs["budget"] == 1:
            found = f"1 (all {costs['tokens']:,} tokens)"
        else:
            found = f"{costs['budget']:,} tokens per image ({costs['share']:.1%} of all)"
        if costs is not None:
            found += f", {_gb(costs['memory_bytes'])}"
            found += "" if costs["ttft_s"] is None else f", first token after {costs['ttft_s']:.3f} s"
        lines.append((name, found))
    return lines


def _notes(estimator: Estimator, rows: list[Costs]) -> list[str]:
    request = estimator.request
    notes = ["Tokens, weights and KV cache are exact; activations are estimated."]
    if request.device == "cuda":
        notes.append(
            f"Memory is what the allocator hands out; the CUDA context, taken as {_gb(estimator.beside_bytes)}, is"
            " counted where a budget is looked for."
        )
    else:
        beside = max(row.process_bytes for row in rows)
        notes.append(f"Memory includes up to {_gb(beside)} for Python, its libraries and pages kept back, estimated.")
    if request.dtype == "int4":
        notes.append("int4: NF4 in the linear layers of the LLM, a float32 scale for 64 weights; the rest in float16.")
    if request.gguf is not None:
        notes.append(
            f"{request.gguf}: the LLM as llama.cpp's mixture of that name has it, its KV cache in float16 for a"
            f" multiple of 256 tokens; encoder and projector in {request.dtype} in PyTorch."
        )
    if estimator.rates is not None and estimator.rates.source == "given":
        notes.append("Times follow from --tflops and --bandwidth.")
    return notes


def _gb(value: float) -> str:
    return f"{value / 1e9:,.2f} GB" if value >= 1e8 else f"{value / 1e6:,.1f} MB"
