"""``hired ask --compare``: the untouched model and the reduced one side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hired.cli import output
from hired.cli.answering import Answer, answer
from hired.cli.ask import Settings, report
from hired.loading import Loaded
from hired.machine import peak_memory_mb

__all__ = ["compare"]

_WARM_UP = 2  # tokens


def compare(loaded: Loaded, names: Sequence[str], pictures: Sequence[Any], settings: Settings) -> None:
    """Answer with all tokens and under the budget, and print both answers and what each cost.

    A short answer that is not counted comes first: whatever runs first pays for what is set up once.

    Args:
        loaded: The model.
        names: Of the pictures.
        pictures: RGB.
        settings: Of the command.

    Raises:
        HiredError: The settings or the model do not allow it.
    """
    reduced = settings.how
    untouched = replace(reduced, budget=1, encoder_budget=None)
    answer(loaded, pictures, settings.question, replace(reduced, max_new_tokens=_WARM_UP))
    found: list[tuple[Answer, float | None]] = []
    for how in (untouched, reduced):
        _fresh_peak(loaded.kind)
        result = answer(loaded, pictures, settings.question, how)
        # Without its cache, which would count in the peak of the next.
        found.append((replace(result, cache=None), peak_memory_mb(loaded.kind)))
        del result
    if settings.as_json:
        whole = replace(settings, how=untouched)
        both = [report(told, names, *each) for told, each in zip((whole, settings), found, strict=True)]
        print(
            json.dumps({**both[1], "untouched": {k: v for k, v in both[0].items() if k not in ("model", "versions")}})
        )
        return
    # The peak of a process's resident set never falls, so it cannot be told for each.
    memory = loaded.kind == "cuda"
    columns = ["", "visual tokens", "first token, ms", "tokens/s", *(["peak MB"] if memory else []), "answer"]
    cells = []
    for words, (result, peak) in zip(("untouched", f"budget {reduced.budget}"), found, strict=True):
        speed = result.tokens_per_second
        cells.append(
            [
                words,
                f"{result.tokens_kept:,}",
                f"{result.first_token_ms:,.0f}",
                "" if speed is None else f"{speed:,.1f}",
                *([f"{peak:,.0f}"] if memory and peak is not None else []),
                " ".join(result.text.split()),
            ]
        )
    output.table(columns, cells)


def _fresh_peak(kind: str) -> None:
    """Count peak memory from now on, where that can be."""
    if kind == "cuda":
        import torch

        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
