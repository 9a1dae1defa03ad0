"""The whole measurement: memory first, then all arms of every scene in turn, then one row an arm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from hired.bench.llama import check_file, with_file
from hired.bench.measure import Sample, attempt, interleave, jobs, planned, warm_up
from hired.bench.memory import Memory, fresh, probe
from hired.bench.overhead import choosing
from hired.bench.quiet import Others, check_quiet
from hired.bench.rows import Row, make_row
from hired.bench.settings import Arm, Scene, Settings
from hired.bench.subject import Subject, inputs_for, load, pictures
from hired.costs.tokens import max_positions
from hired.errors import HiredError
from hired.loading.devices import usable_device
from hired.machine import machine
from hired.reduction import Plan

__all__ = ["RANDOM_WEIGHTS", "bench"]

RANDOM_WEIGHTS = (
    "Weights are random: speed and memory do not depend on their values, only on the architecture."
    " The answers mean nothing."
)
Tell = Callable[[str], None]


def bench(
    settings: Settings,
    tell: Tell = lambda words: None,
    measured: Callable[[int, int | None], None] = lambda longest, positions: None,
) -> dict[str, Any]:
    """Measures speed and memory of every arm.

    Args:
        settings: what to measure.
        tell: called with what is being done, for people who wait.
        measured: called for every picture size and batch with the tokens of the longest prompt and its answer, and with
            how many positions the LLM was made for (None if it does not say).

    Returns:
        `subject`, `random_weights`, `note`, `results` (one `Row` a scene and arm), `settings` and `machine`; where
        llama.cpp ran, `others_cores`: how many cores other programs used before and during the runs.

    Raises:
        HiredError: settings that cannot be measured, or a model that cannot be loaded or does not fit.
    """
    settings.check()
    if not settings.llama:
        return _bench(settings, tell, measured)
    check_file(settings)
    quiet = check_quiet(torch.get_num_threads(), settings.busy)
    with with_file(settings, tell) as ready:
        others = Others()
        found = _bench(ready, tell, measured)
        used = others.cores()
    found["settings"] = dataclasses.asdict(settings)
    return {**found, "others_cores": {"before": _cores(quiet), "during": _cores(used)}}


def _cores(used: float | None) -> float | None:
    return None if used is None else round(used, 2)


def _bench(settings: Settings, tell: Tell, measured: Callable[[int, int | None], None]) -> dict[str, Any]:
    """The same for settings that are checked, where a GGUF file that is measured is there."""
    arms, scenes = settings.arms(), settings.scenes()
    memory: dict[tuple[Scene, Arm], Memory | None] = {}
    # Fresh processes come first: two copies of a large model may not fit.
    if settings.memory and usable_device(settings.device).type != "cuda":
        for scene in scenes:
            for arm in arms:
                tell(f"memory of {arm.name} in a process of its own")
                memory[scene, arm] = fresh(settings, scene, arm, torch.get_num_threads())
    tell(f"making {settings.subject}")
    subject = attempt(lambda: load(settings))
    if subject is None:
        raise HiredError(f"{settings.subject} does not fit into memory: use a smaller model, or another --dtype")
    rows: list[Row] = []
    for scene in scenes:
        rows += _scene(settings, subject, scene, arms, memory, tell, measured)
    return {
        "subject": settings.subject,
        "random_weights": subject.random,
        "note": RANDOM_WEIGHTS if subject.random else "",
        "results": rows,
        "settings": dataclasses.asdict(settings),
        "machine": machine(subject.model),
    }


@dataclass(frozen=True)
class _Known:
    """What is known of an arm before it runs."""

    plan: Plan
    tokens: int
    length: int


def _scene(
    settings: Settings,
    subject: Subject,
    scene: Scene,
    arms: list[Arm],
    memory: dict[tuple[Scene, Arm], Memory | None],
    tell: Tell,
    measured: Callable[[int, int | None], None],
) -> list[Row]:
    """The rows of one picture size and batch."""
    where = f"{scene.image[0]}x{scene.image[1]}, batch {scene.batch}"
    # Facts of the arms come from one picture: a batch that does not fit is found out in the arms.
    single = inputs_for(subject, pictures(Scene(scene.image, 1)), settings.text_tokens)
    known = {arm: _known(subject, single, arm) for arm in arms}
    longest = max(facts.length for facts in known.values()) + settings.new_tokens
    measured(longest, max_positions(subject.model.config))
    if settings.memory and subject.device.type == "cuda":
        for arm in arms:
            tell(f"{where}: memory of {arm.name}")
            memory[scene, arm] = attempt(lambda arm=arm: probe(settings, subject, scene, arm))  # type: ignore[misc]
    runs = [arm for arm in arms if memory.get((scene, arm), True) is not None]
    lengths = {arm: known[arm].length for arm in arms}
    todo = jobs(subject, scene, runs, lengths, settings.new_tokens, settings.text_tokens)
    if settings.warmup == 0:  # pages the weights in
        tell(f"{where}: short warm-up")
        attempt(next(job for job in todo if job.name == "encoder").run)
        attempt(lambda: warm_up(subject, settings.text_tokens))
    total, done = len(todo) * (settings.warmup + settings.repeats), 0

    def advance() -> None:
        nonlocal done
        done += 1
        tell(f"{where}: run {done} of {total}")

    samples = interleave(todo, settings.repeats, settings.warmup, advance)
    found: dict[object, list[Sample] | None] = {}
    for index, job in enumerate(todo):
        found[job.arm or job.length or job.name] = samples[index]
    dropping = [facts.plan for facts in known.values() if facts.plan.encoder is not None]
    chosen = attempt(lambda: choosing(subject, dropping[0])) if dropping else None
    return [
        make_row(
            arm=arm,
            scene=scene,
            config=subject.model.config,
            plan=known[arm].plan,
            tokens=known[arm].tokens,
            length=known[arm].length,
            new_tokens=settings.new_tokens,
            runs=found.get(arm),
            full=found.get(arms[0]),
            encoder=found.get("encoder"),
            text=found.get(known[arm].length),
            preprocess=found.get("preprocess"),
            memory=memory.get((scene, arm)),
            choosing=chosen,
            whole=subject.llm is None,
        )
        for arm in arms
    ]


def _known(subject: Subject, single: Any, arm: Arm) -> _Known:
    """Tokens and prompt length of an arm; nothing of the model runs."""
    made = planned(subject, single, arm)
    layout, total = made.layouts[0], made.totals[0]
    tokens = layout.tokens_full if total is None else min(total, layout.tokens_real)
    return _Known(made, tokens, int(single["input_ids"].shape[1]) - layout.tokens_full + tokens)
