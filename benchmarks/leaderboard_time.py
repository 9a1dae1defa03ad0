"""Seconds to the first token under every method, at the shape of LLaVA-NeXT with a 0.5B LLM: `leaderboard-time.json`.

Encoding, choosing (and merging) and prefill are timed apart in one run, with warm-up and medians, and added up. Weights
are random: what methods compute does not depend on them, but for SCOPE on a CPU, which skips what has not changed.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from hired import files
from hired.bench.settings import Scene, Settings
from hired.bench.subject import Subject, inputs_for, load, pictures
from hired.machine import machine, versions
from hired.methods import METHODS
from hired.reduction import assemble, encode, plan, project, select
from hired.reduction.once import encode_for
from hired.reduction.project import merged

FILE = Path(__file__).parent / "leaderboard-time.json"
SHAPE = "llava-next-0.5b"
BUDGETS = (0.4, 0.2, 0.1, 0.05, 0.03)
TEXT = 32
REPEATS = 3


def _timed(run: Any, subject: Subject, repeats: int) -> float:
    """Median seconds of a call, after one that does not count."""
    spent = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        subject.synchronize()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent[1:])


@torch.inference_mode()
def measure(device: str = "auto", repeats: int = REPEATS) -> dict[str, Any]:
    """The content of the file."""
    asked = Settings(shape=SHAPE, device=device)
    subject = load(asked)
    model = subject.model
    inputs = inputs_for(subject, pictures(Scene(asked.images[0], 1)), TEXT)

    def prefill(ready: Any) -> None:
        model.generate(**ready, max_new_tokens=1, do_sample=False)

    rows = []
    full = _timed(lambda: prefill(inputs), subject, repeats)
    prefills: dict[float, float] = {}
    for name in METHODS:
        # What is encoded does not depend on the budget, but for HiRED's shares, which are left to the choice here.
        first = plan(model, inputs, BUDGETS[0], method=name)
        encoded = encode_for(first, [METHODS[name]])
        encoding = _timed(lambda first=first: encode(first), subject, max(repeats // 2, 1))  # type: ignore[misc]
        for budget in BUDGETS:
            made = plan(model, inputs, budget, method=name)
            kept = select(made, encoded)
            ready = assemble(made, encoded, kept, project(made, encoded, kept))
            if budget not in prefills:
                prefills[budget] = _timed(lambda ready=ready: prefill(ready), subject, repeats)  # type: ignore[misc]
            row = {
                "method": name,
                "budget": budget,
                "encode_s": encoding,
                "choose_s": _timed(
                    lambda made=made, encoded=encoded: merged(made, encoded, select(made, encoded)),  # type: ignore[misc]
                    subject,
                    1 if name in SLOW else repeats,
                ),
                "prefill_s": prefills[budget],
            }
            rows.append({key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()})
    return {
        "subject": SHAPE,
        "full_s": round(full, 5),
        "results": rows,
        "settings": {"image": asked.images[0], "text_tokens": TEXT, "repeats": repeats},
        "versions": versions(),
        "machine": machine(model),
    }


SLOW = ("scope", "vispruner", "cdpruner", "otprune")
"""Methods that take seconds there: timed once, after one that does not count."""


def main() -> None:
    """Measures and writes the file."""
    files.write_json(FILE, measure())
