"""One row of results: medians, ranges, and how near an arm comes to what its tokens allow."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, TypedDict

from hired.bench.measure import Sample
from hired.bench.memory import OUT, Memory
from hired.bench.overhead import Choosing
from hired.bench.settings import Arm, Scene
from hired.costs.flops import encoder_flops, prefill_flops, projector_flops, used_layers
from hired.errors import UnsupportedModelError
from hired.reduction import Plan

__all__ = ["Row", "flops_to_first_token", "make_row"]


class Row(TypedDict):
    """One arm in one scene. Seconds are medians of all repeats; None where a thing was not or could not be measured.

    Attributes:
        budget: 1.0 is the untouched model.
        encoder_budget: as in `hired.reduce`, or None.
        image: [width, height] in pixels.
        batch: rows, one picture each.
        status: "ok" or "out of memory".
        tokens: visual tokens kept of each picture.
        prompt_tokens: text and kept visual tokens of each row.
        preprocess_s: the image processor; counted nowhere.
        encode_s, select_s, prefill_s, decode_s: stages. For the untouched model encode is the encoder run alone, and
            prefill the rest of the time to first token.
        ttft_s: time to first token, from the processor's output.
        tokens_per_s: new tokens of all rows over the whole time, preprocessing left out.
        range: [lowest, highest] of each of these.
        speedup: the untouched model's time to first token over this one's.
        allowed_speedup: the same for the untouched encoder and the untouched LLM on text of this length.
        speedup_of_allowed: one over the other.
        flops_speedup: FLOPs to the first token of the untouched model over those of this arm.
        allowed_ttft_s: untouched encoder and text prefill.
        allowed_tokens_per_s: untouched encoder, text prefill and text decoding.
        tokens_per_s_of_allowed: tokens_per_s over that.
        choosing_share: what choosing costs (reading attention, dividing the budget, select_s) over encode_s.
        choosing_s: of one picture, reading attention, dividing the budget and selecting, timed apart.
        peak_memory_mb, loaded_memory_mb: see `hired.bench.memory.Memory`.
        kv_cache_bytes: of the KV cache after prefill, all rows.
    """

    budget: int | float
    encoder_budget: float | None
    image: list[int]
    batch: int
    status: str
    tokens: int
    prompt_tokens: int
    preprocess_s: float | None
    encode_s: float | None
    select_s: float | None
    prefill_s: float | None
    decode_s: float | None
    ttft_s: float | None
    tokens_per_s: float | None
    range: dict[str, list[float]]
    speedup: float | None
    allowed_speedup: float | None
    speedup_of_allowed: float | None
    flops_speedup: float | None
    allowed_ttft_s: float | None
    allowed_tokens_per_s: float | None
    tokens_per_s_of_allowed: float | None
    choosing_share: float | None
    choosing_s: float | None
    peak_memory_mb: float | None
    loaded_memory_mb: float | None
    kv_cache_bytes: int | None


Samples = Sequence[Sample] | None


def make_row(
    *,
    arm: Arm,
    scene: Scene,
    config: Any,
    plan: Plan,
    tokens: int,
    length: int,
    new_tokens: int,
    runs: Samples,
    full: Samples,
    encoder: Samples,
    text: Samples,
    preprocess: Samples,
    memory: Memory | None,
    choosing: Choosing | None,
    whole: bool = True,
) -> Row:
    """The row of one arm.

    Args:
        arm, scene, config, plan, tokens, length, new_tokens: what was run; tokens and length as planned.
        runs: its samples; None where it ran out of memory.
        full: those of the untouched model.
        encoder: those of the untouched encoder.
        text: those of the LLM on text of this length.
        preprocess: those of the image processor.
        memory: what it needed, None where that was not measured.
        choosing: what choosing costs for one picture; None where nothing is chosen.
        whole: the untouched model's encoder computes all its layers, those included whose output nobody reads.
    """
    if runs and runs[0].length is not None:  # as run; the plan's where nothing ran
        tokens, length = tokens + runs[0].length - length, runs[0].length
    generated = new_tokens * scene.batch
    series = _series(arm, runs or (), encoder or ())
    series["preprocess_s"] = [sample.ttft for sample in preprocess or ()]
    series["tokens_per_s"] = [generated / sample.total for sample in runs or ()]
    middle = {name: _median(values) for name, values in series.items()}
    alone, words = _median([s.ttft for s in encoder or ()]), _median([s.ttft for s in text or ()])
    answered = _median([s.total for s in text or ()])
    untouched = _median([s.ttft for s in full or ()])
    allowed = None if alone is None or words is None else alone + words
    allowed_rate = None if alone is None or answered is None else generated / (alone + answered)
    if arm.full:
        allowed, allowed_rate = untouched, middle["tokens_per_s"]
    spent = None
    chosen = None if arm.full else choosing
    if chosen is not None and middle["select_s"] is not None:
        spent = chosen.inside * scene.batch + middle["select_s"]
    return Row(
        budget=arm.budget,
        encoder_budget=arm.encoder_budget,
        image=list(scene.image),
        batch=scene.batch,
        status="ok" if runs else OUT,
        tokens=tokens,
        prompt_tokens=length,
        preprocess_s=_rounded(middle["preprocess_s"]),
        encode_s=_rounded(middle["encode_s"]),
        select_s=_rounded(middle["select_s"]),
        prefill_s=_rounded(middle["prefill_s"]),
        decode_s=_rounded(middle["decode_s"]),
        ttft_s=_rounded(middle["ttft_s"]),
        tokens_per_s=_rounded(middle["tokens_per_s"]),
        range={name: [_round(min(found)), _round(max(found))] for name, found in series.items() if found},
        speedup=_ratio(untouched, middle["ttft_s"]),
        allowed_speedup=_ratio(untouched, allowed),
        speedup_of_allowed=_ratio(allowed, middle["ttft_s"]),
        flops_speedup=_flops_speedup(config, plan, arm, tokens, length, runs[0].shares if runs else None, whole),
        allowed_ttft_s=_rounded(allowed),
        allowed_tokens_per_s=_rounded(allowed_rate),
        tokens_per_s_of_allowed=_ratio(middle["tokens_per_s"], allowed_rate),
        choosing_share=_ratio(spent, middle["encode_s"]),
        choosing_s=None if chosen is None else _rounded(chosen.alone),
        peak_memory_mb=None if memory is None or memory.peak_mb is None else round(memory.peak_mb, 1),
        loaded_memory_mb=None if memory is None or memory.loaded_mb is None else round(memory.loaded_mb, 1),
        kv_cache_bytes=None if memory is None else memory.kv_cache_bytes,
    )


def _series(arm: Arm, runs: Sequence[Sample], encoder: Sequence[Sample]) -> dict[str, list[float]]:
    """The values of every timed stage, one a repeat."""
    if arm.full:  # its encoder cannot be timed without a wait inside of it
        encodes = [sample.ttft for sample in encoder[: len(runs)]]
        selects = [0.0] * len(encodes)
        prefills = [run.ttft - encode for run, encode in zip(runs, encodes, strict=False)]
    else:
        encodes = [sample.encode for sample in runs if sample.encode is not None]
        selects = [sample.select for sample in runs if sample.select is not None]
        prefills = [sample.prefill for sample in runs if sample.prefill is not None]
    return {
        "encode_s": encodes,
        "select_s": selects,
        "prefill_s": prefills,
        "decode_s": [sample.decode for sample in runs if sample.decode is not None],
        "ttft_s": [sample.ttft for sample in runs],
    }


def flops_to_first_token(
    config: Any,
    plan: Plan,
    arm: Arm,
    tokens: int,
    length: int,
    shares: Sequence[int] | None = None,
    whole: bool = True,
) -> int:
    """FLOPs of one row until its first token: encoder, projector and prefill, as this arm computes them.

    Args:
        config: of the model.
        plan: of the arm.
        arm: the arm.
        tokens: visual tokens kept.
        length: of the prompt.
        shares: tokens kept of each partition; needed where the encoder has a budget.
        whole: as in `make_row`.

    Raises:
        UnsupportedModelError: a model whose costs are not known.
    """
    layout = plan.layouts[0]
    if arm.full:
        projected = projector_flops(config, layout.partitions * layout.cells_per_partition)
        layers = None if whole else used_layers(config)
        return encoder_flops(config, layout.partitions, layers) + projected + prefill_flops(config, length)
    narrow: dict[str, Any] = {}
    if plan.encoder_budget is not None and plan.encoder is not None and shares is not None:
        narrow["narrow_after"] = plan.encoder_budget.layer(plan.encoder.first, plan.encoder.last)
        narrow["kept"] = [plan.encoder_budget.patches(share, layout.cells_per_partition) for share in shares]
    encoder = encoder_flops(config, layout.partitions, used_layers(config), **narrow)
    return encoder + projector_flops(config, tokens) + prefill_flops(config, length)


def _flops_speedup(
    config: Any, plan: Plan, arm: Arm, tokens: int, length: int, shares: Sequence[int] | None, whole: bool
) -> float | None:
    full = plan.layouts[0].tokens_full
    try:
        all_ = flops_to_first_token(config, plan, Arm(1.0), full, length - tokens + full, whole=whole)
        if arm.full:
            return 1.0
        return _ratio(all_, flops_to_first_token(config, plan, arm, tokens, length, shares))
    except UnsupportedModelError:
        return None


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else round(over / under, 4)


def _rounded(value: float | None) -> float | None:
    return None if value is None else _round(value)


def _round(value: float) -> float:
    """Four significant digits and more: microseconds for what takes little."""
    return round(value, 6)
