"""One budget in a process of its own: loads the model once, runs task after task, and tells of each.

`python -m hired.harness.worker` reads a job from standard input, a JSON object, and writes events to standard output,
one JSON object a line; whatever lmms-eval prints goes to standard error. A process of its own because tasks of
lmms-eval keep counters in their modules: a second run of OCRBench would be added to the first.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from importlib import metadata
from typing import Any

from hired.errors import HiredError
from hired.harness.paper import score
from hired.harness.settings import Settings
from hired.loading.strangers import reason

__all__ = ["main", "run"]

Tell = Callable[[dict[str, Any]], None]


def run(settings: Settings, budget: float, tasks: list[Any], submissions: str, tell: Tell) -> None:
    """Runs tasks under one budget.

    Events have a `kind`: `task` before each (with its name), `asked` (with `questions`, how many there will be, or 0
    for one that is being asked), `done` after it (with `run`, its result).

    Args:
        settings: of the reproduction.
        budget: this one.
        tasks: lmms-eval's names, or changed definitions with the name in `task`.
        submissions: the folder in which tasks leave files for servers.
        tell: called with every event.

    Raises:
        HiredError: settings that will not do, or a question that could not be answered.
    """
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from hired.harness.models import HiredChat, HiredSimple
    from hired.machine import machine, versions

    manager = TaskManager("ERROR", include_path=settings.include, model_name="hired")
    names = [str(task["task"]) if isinstance(task, dict) else str(task) for task in tasks]
    unknown = [name for name in names if name not in manager.all_subtasks]
    if unknown:
        raise HiredError(f"lmms-eval has no task {', '.join(map(repr, unknown))}: see `lmms-eval tasks subtasks`")
    kind = HiredSimple if settings.prompts == "paper" else HiredChat
    given: dict[str, Any] = {"dtype": None if settings.dtype == "auto" else settings.dtype}
    if settings.trust_remote_code:
        given["trust_remote_code"] = True
    model = kind(
        settings.model,
        budget=budget,
        base=settings.base,
        alpha=settings.alpha,
        method=settings.method,
        newlines=settings.newlines,  # type: ignore[arg-type]
        device=None if settings.device == "auto" else settings.device,
        batch_size=1,
        **given,
    )
    model.keeps_model = True
    model.asked = lambda questions: tell({"kind": "asked", "questions": questions})
    where = machine(model.model)
    made_with = {**versions(), **{name: metadata.version(name) for name in ("lmms_eval", "datasets")}}
    for name, task in zip(names, tasks, strict=True):
        tell({"kind": "task", "task": name})
        before, start = model.counts, time.perf_counter()
        made = manager.load_task_or_group([task], "simple" if model.is_simple else "chat")
        results = simple_evaluate(
            model=model,
            tasks=list(made.values()),
            batch_size=1,
            limit=settings.limit,
            log_samples=False,
            task_manager=manager,
            cli_args=Namespace(process_with_media=False, output_path=submissions),
        )
        metrics = {key: value for key, value in results["results"][name].items() if key != "alias"}
        metric, value = score(name, metrics)
        pictures, full, kept = (now - then for now, then in zip(model.counts, before, strict=True))
        if pictures == 0:
            raise HiredError(f"{name} showed the model no picture: a budget means nothing for it")
        found = {
            "task": name,
            "budget": budget,
            "metric": metric,
            "score": value,
            "n": int(results["n-samples"][name]["effective"]),
            "pictures": pictures,
            "visual_tokens": round(full / pictures, 2),
            "visual_tokens_kept": round(kept / pictures, 2),
            "seconds": round(time.perf_counter() - start, 1),
            "base_class": model.base_class,
            "metrics": {key: value for key, value in metrics.items() if isinstance(value, int | float | str)},
            "versions": made_with,
            "machine": where,
        }
        tell({"kind": "done", "run": found})
    model.keeps_model = False
    model.clean()


def main() -> int:
    """Runs the job on standard input; 0 once all of it is done, 1 after an event `error` with a `message`."""
    job = json.load(sys.stdin)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as events:
        os.dup2(2, 1)  # what lmms-eval and its tasks print

        def tell(event: dict[str, Any]) -> None:
            print(json.dumps(event), file=events, flush=True)

        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in job["settings"].items()
        }
        try:
            run(Settings(**given), job["budget"], job["tasks"], job["submissions"], tell)
        except BrokenPipeError:
            return 1  # nobody waits for this any more
        except HiredError as error:
            tell({"kind": "error", "message": str(error)})
            return 1
        except Exception as error:  # lmms-eval's, its tasks', the hub's
            import traceback

            traceback.print_exc()
            tell({"kind": "error", "message": f"lmms-eval failed: {type(error).__name__}: {reason(error)}"})
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
