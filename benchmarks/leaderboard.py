"""Every method on every task: a JSON file for each method, task and model in `leaderboard/`, a page, two plots.

python -m benchmarks.leaderboard            # measures what has no file yet, then writes docs/leaderboard.md and plots
python -m benchmarks.leaderboard --again scope,hired     # measures these once more
python -m benchmarks.leaderboard --time     # seconds of encoding, choosing and prefill at the 0.5B shape (20 minutes)
python -m benchmarks.leaderboard --page     # writes the page and the plots from the files

Interrupted, it goes on where it stopped: a file is written when all its budgets are measured.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

from benchmarks import leaderboard_page, leaderboard_time

from hired import files, loading, prompts
from hired.evaluation import Settings, all_methods
from hired.evaluation.run import evaluate
from hired.machine import machine, versions

FOLDER = leaderboard_page.FOLDER
MODELS = {"tiny": ("tiny", "bfloat16"), "tiny_aya": ("tests/data/tiny_aya", "float32")}
"""Where each model's weights are, and the dtype it is measured in."""
TASKS = {
    "tiny": ("forms", "forms-unseen", "dense", "large", "shapes", "layout", "mixed"),
    "tiny_aya": ("forms", "dense"),  # it knows small print only
}
BUDGETS = (1, 0.4, 0.2, 0.1, 0.05, 0.03)
TOGETHER = 8
"""Methods that share one encoding of the pages; more of them lose more when interrupted."""
BATCH = 40
"""Pages at a time."""


def settings(task: str, limit: int) -> Settings:
    """What is measured on a task; "-unseen" stands for typefaces that training never showed."""
    name, _, fonts = task.partition("-")
    return Settings(task=name, fonts=fonts or "train", budgets=BUDGETS, limit=limit, batch_size=BATCH)


def measurable(model: str) -> list[str]:
    """Methods by name; the smaller picture needs a CLIP tower that takes other sizes."""
    return [name for name in all_methods() if name != "smaller" or model == "tiny"]


def measure(model: str, task: str, methods: Sequence[str], limit: int) -> None:
    """Measures some methods and writes their files."""
    loaded = loading.load(MODELS[model][0], "cpu", MODELS[model][1])
    asked = replace(settings(task, limit), methods=tuple(methods))
    rows = evaluate(loaded.model, loaded.processor, asked, prompts.prompt)
    for name in methods:
        result = {
            "model": model,
            "task": task,
            "method": name,
            "results": [row for row in rows if row["method"] == name],
            "settings": asdict(replace(asked, methods=(name,))),
            "versions": versions(),
            "machine": machine(loaded.model),
        }
        path = leaderboard_page.path(model, task, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, result)


def main() -> None:
    """Measures what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--tasks", help="some tasks only; several processes may share the work")
    parser.add_argument("--again", default="", help="methods to measure though they have files")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--page", action="store_true")
    args = parser.parse_args()
    if args.time:
        leaderboard_time.main()
    elif not args.page:
        again = set(filter(None, args.again.split(",")))
        for model in args.models.split(","):
            for task in args.tasks.split(",") if args.tasks else TASKS[model]:
                names = measurable(model)
                missing = [n for n in names if n in again or not leaderboard_page.path(model, task, n).exists()]
                for start in range(0, len(missing), TOGETHER):
                    part = missing[start : start + TOGETHER]
                    print(f"{model}, {task}: {', '.join(part)}", file=sys.stderr)
                    measure(model, task, part, args.limit)
    leaderboard_page.main()


if __name__ == "__main__":
    main()
