"""Writes a training record, such as `benchmarks/tiny-training.json`: how the weights were made.

Gathers the logs and settings of the runs named on the command line, in order. What the weights score is in the
files that `make results` writes.

    python -m training.record encoder llm
    python -m training.record --model aya-vision aya-encoder aya-llm
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
from pathlib import Path

import numpy
import PIL
import torch
import transformers

from hired.forms import COLOURS, CUT_SHARE, GRIDS, KEYS, SHAPES, TASKS, TITLES
from training.encoder import RUNS
from training.fonts import files
from training.recipes import RECIPES


def processor_name() -> str:
    """The CPU's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def curve(name: str, points: int = 12) -> list[dict[str, float]]:
    """About `points` rows of a run's log, the last one always."""
    log = RUNS / f"{name}.jsonl"
    if not log.exists():  # a run too short to log anything
        return []
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    picked = sorted({round(i * (len(rows) - 1) / (points - 1)) for i in range(points)})
    return [rows[i] for i in picked]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(RECIPES), default="llava-next")
    parser.add_argument("runs", nargs="+")
    args = parser.parse_args()
    recipe = RECIPES[args.model]
    stages, settings = [], {}
    for name in args.runs:
        state = torch.load(RUNS / f"{name}.pt", map_location="cpu")
        settings[name] = state.get("args") or "the command line in training/README.md"
        stages.append(
            {
                "name": name,
                "steps": state["step"],
                "minutes": round(state["spent"] / 60, 1),
                "curve": curve(name),
            }
        )
    weights = recipe.weights / "model.safetensors"
    record = {
        "machine": {"cpu": processor_name(), "cores": os.cpu_count(), "gpu": None},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "pillow": PIL.__version__,
            "numpy": numpy.__version__,
        },
        "settings": settings,
        "data": {
            "tasks": TASKS,
            "words": [len(KEYS), len(TITLES), len(SHAPES), len(COLOURS)],
            "families": list(files()),
            "grids": GRIDS,
            "cut_share": CUT_SHARE,
        },
        "weights": {
            "bytes": weights.stat().st_size,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        },
        "stages": stages,
    }
    recipe.record.write_text(json.dumps(record, indent=1) + "\n")
    print(recipe.record)


if __name__ == "__main__":
    main()
