"""What every method and budget costs, on one picture: the timed runs are those of `hired.bench`."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hired import prompts
from hired.agreeing.answering import Answered
from hired.agreeing.settings import Settings
from hired.bench.measure import Job, cache_bytes, interleave, run_arm
from hired.bench.settings import Arm
from hired.bench.subject import Subject, endless
from hired.errors import HiredError
from hired.families import family_of

__all__ = ["Cost", "middle", "timed"]

_NEW_TOKENS = 16


@dataclass(frozen=True)
class Cost:
    """Medians of the timed runs.

    Attributes:
        ttft: Seconds from the processor's output to the first token.
        rate: New tokens a second behind the first; None where only one is made.
        kv_cache_bytes: Of the key-value cache after prefill.
        peak_bytes: Of the GPU's allocator at the highest, weights included; None on other devices.
    """

    ttft: float
    rate: float | None
    kv_cache_bytes: int
    peak_bytes: int | None


def middle(found: Sequence[Answered]) -> Answered:
    """The question whose picture has the median of visual tokens; of several such, the first."""
    tokens = statistics.median_low(each.untouched.tokens for each in found)
    return next(each for each in found if each.untouched.tokens == tokens)


def timed(
    model: Any, processor: Any, about: Answered, settings: Settings, advance: Callable[[], None] = lambda: None
) -> list[Cost]:
    """The costs of the untouched model and of every job, in turn, each warmed up once.

    Args:
        model: A supported model, in eval mode.
        processor: Its processor.
        about: The question that is asked.
        settings: What to measure; every run makes up to 16 tokens, whatever ends an answer.
        advance: Called after every run.

    Raises:
        HiredError: A run takes more memory than there is.
    """
    image = about.sample.load()
    words = prompts.prompt(processor, about.sample.question)
    inputs = prompts.inputs(model, processor, [words], [image])
    subject = Subject("", model, processor.image_processor, family_of(model), random=False)
    count = max(2, min(_NEW_TOKENS, settings.max_new_tokens))
    arms: list[tuple[Arm, dict[str, Any]]] = [(Arm(1.0), {})]
    for name, budget in settings.jobs():
        arms.append(
            (
                Arm(budget),
                {"method": settings.method(name, about.sample.name), "images": [image], **settings.keywords()},
            )
        )
    with _endless(model), torch.inference_mode():
        todo = [
            Job("arm", lambda arm=arm, more=more: run_arm(subject, inputs, arm, count, **more), arm)  # type: ignore[misc]
            for arm, more in arms
        ]
        samples = interleave(todo, settings.repeats, 1, advance)
        costs = []
        for place, (arm, more) in enumerate(arms):
            runs = samples[place]
            if runs is None:
                raise HiredError(f"out of memory at budget {arm.budget:g}: use smaller pictures, or a smaller model")
            if model.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(model.device)
            cached = cache_bytes(subject, inputs, arm, count, **more)
            peak = torch.cuda.max_memory_allocated(model.device) if model.device.type == "cuda" else None
            decodes = [run.decode for run in runs if run.decode]
            costs.append(
                Cost(
                    ttft=statistics.median(run.ttft for run in runs),
                    rate=(count - 1) / statistics.median(decodes) if decodes else None,
                    kv_cache_bytes=cached,
                    peak_bytes=peak,
                )
            )
    return costs


@contextlib.contextmanager
def _endless(model: Any) -> Iterator[None]:
    """The model's generation settings are such that nothing ends an answer, for the time of the block."""
    before = model.generation_config
    model.generation_config = endless()
    try:
        yield
    finally:
        model.generation_config = before
