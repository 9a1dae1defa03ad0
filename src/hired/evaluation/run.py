"""Running a model over the pages: every method at every budget, one encoder pass a batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from torch import Tensor

from hired import greedy, prompts
from hired.core.image import Attention, Image
from hired.core.layout import Layout
from hired.evaluation import checks, smaller
from hired.evaluation.samples import Sample, samples
from hired.evaluation.settings import CHECKS, Settings
from hired.families import family_of
from hired.intervals import wilson
from hired.machine import synchronize
from hired.methods import METHODS, Method
from hired.methods.baselines import Random
from hired.reduction import Encoded, Plan, assemble, encode, plan, project, select
from hired.reduction.once import counts, encode_for
from hired.reduction.project import merged

__all__ = ["Row", "evaluate", "generate"]

Prompt = Callable[[Any, str], str]


class Row(TypedDict):
    """One measurement.

    Attributes:
        method: A name of `hired.evaluation.all_methods` or `CHECKS`.
        budget: The budget it ran under.
        tokens: Visual tokens kept, mean of a picture.
        exact_match: Share of the answers that equal the truth, 0..1.
        correct: How many do.
        n: Pictures.
        low, high: Wilson's 95 % interval of `exact_match`.
        prompt: Tokens of the prompt, text included, mean of a picture.
        choose_ms: Milliseconds of choosing (and merging) once everything is encoded, median of a picture over the
            batches; None where nothing is chosen.
    """

    method: str
    budget: int | float
    tokens: float
    exact_match: float
    correct: int
    n: int
    low: float
    high: float
    prompt: float
    choose_ms: float | None


@dataclass
class _Tally:
    """What one (method, budget) has come to."""

    tokens: int = 0
    correct: int = 0
    prompt: int = 0
    seconds: list[float] = field(default_factory=list)


def evaluate(
    model: Any,
    processor: Any,
    settings: Settings,
    prompt: Prompt,
    advance: Callable[[int], None] = lambda pictures: None,
    measured: Callable[[int], None] = lambda tokens: None,
    own: Mapping[str, Method] | None = None,
) -> list[Row]:
    """Measure exact match on pages that training never saw.

    Args:
        model: A supported model, in eval mode.
        processor: Its processor.
        settings: What to measure.
        prompt: Makes a prompt with one picture from the processor and a question.
        advance: Called with the number of pictures done since the last call.
        measured: Called with the tokens of the longest prompt of every batch, as the LLM is given it.
        own: Methods of the caller's, by the name that their rows get; measured beside those of `settings`.

    Returns:
        One row for every method and budget, in the order of `settings`, the caller's last. Where a budget keeps all
        tokens of every picture, the methods share one measurement.

    Raises:
        HiredError: Settings or model that will not do.
    """
    own = dict(own or {})
    jobs = [*settings.jobs(), *((name, budget) for name in own for budget in settings.check())]
    greedy.end_tokens(model)  # an error of it should come before the work
    pages = samples(settings)
    tallies = {job: _Tally() for job in jobs}
    with torch.inference_mode():
        for start in range(0, len(pages), settings.batch_size):
            batch = pages[start : start + settings.batch_size]
            for job, done in _batch(model, processor, settings, prompt, jobs, batch, measured, own):
                tally = tallies[job]
                tally.tokens += done.tokens
                tally.prompt += done.prompt
                tally.correct += sum(a == sample.answer for a, sample in zip(done.answers, batch, strict=True))
                if done.seconds is not None:
                    tally.seconds.append(done.seconds / len(batch))
            advance(len(batch))
    return [
        Row(
            method=method,
            budget=budget,
            tokens=round(tally.tokens / len(pages), 2),
            exact_match=round(tally.correct / len(pages), 4),
            correct=tally.correct,
            n=len(pages),
            low=round(wilson(tally.correct, len(pages))[0], 4),
            high=round(wilson(tally.correct, len(pages))[1], 4),
            prompt=round(tally.prompt / len(pages), 2),
            choose_ms=round(1000 * statistics.median(tally.seconds), 3) if tally.seconds else None,
        )
        for (method, budget), tally in tallies.items()
    ]


@dataclass(frozen=True)
class _Done:
    """One job on one batch: visual tokens kept and prompt tokens in all, seconds of choosing, answers."""

    tokens: int
    prompt: int
    seconds: float | None
    answers: list[str]


def _batch(
    model: Any,
    processor: Any,
    settings: Settings,
    prompt: Prompt,
    jobs: Sequence[tuple[str, int | float]],
    batch: Sequence[Sample],
    measured: Callable[[int], None],
    own: Mapping[str, Method],
) -> list[tuple[tuple[str, int | float], _Done]]:
    """Every job on one batch."""
    images = [sample.image for sample in batch]
    words = [prompt(processor, sample.question) for sample in batch]
    processor.tokenizer.padding_side = "left"
    inputs = prompts.inputs(model, processor, words, images, padding=True)

    def planned(method: str | Method, budget: int | float, encoder_budget: float | None = None) -> Plan:
        options: Any = {"newlines": settings.newlines, "positions": settings.positions}
        options["encoder_budget"] = encoder_budget
        return plan(
            model,
            inputs,
            budget,
            alpha=settings.alpha,
            method=method,
            variant=settings.variant,
            images=images,
            **options,
        )

    # Two tokens an image is a budget that always drops something, so the encoder is read.
    known: dict[str, Any] = {**METHODS, **own}
    encoded = encode_for(planned("hired", 2), [known[method] for method, _ in jobs if method in known])
    words_alone = _words(inputs, model)
    untouched: list[str] | None = None
    found = []
    for method, budget in jobs:
        spent: float | None = None
        if method == "smaller":
            ready, kept = _smaller(processor, planned("hired", budget), encoded, batch)
        else:
            narrow = settings.encoder_budget if method == "hired" and budget != 1 else None
            made = planned("hired" if method in CHECKS else own.get(method, method), budget, narrow)
            seen = encoded if narrow is None else encode(made)
            start = _now(model)
            rows = _rows(method, made, seen, batch)
            merges = merged(made, seen, rows)
            spent = _now(model) - start if method in known and any(row is not None for row in rows) else None
            ready = assemble(made, seen, rows, project(made, seen, rows, merges))
            kept = sum(counts(made, rows))
            if all(row is None for row in rows):
                untouched = untouched or generate(model, processor, settings, ready)
                found.append(((method, budget), _Done(kept, kept + words_alone, None, untouched)))
                measured(int(ready["input_ids"].shape[1]))
                continue
        measured(int(ready["input_ids"].shape[1]))
        answers = generate(model, processor, settings, ready)
        found.append(((method, budget), _Done(kept, kept + words_alone, spent, answers)))
    return found


def _words(inputs: Any, model: Any) -> int:
    """Prompt tokens of a batch that are no visual tokens."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    return int((mask.bool() & (ids != family_of(model).image_token(model))).sum())


def _now(model: Any) -> float:
    """Seconds, once the model's device has done what it was told."""
    synchronize(model.device)
    return time.perf_counter()


def _rows(method: str, made: Plan, encoded: Encoded, batch: Sequence[Sample]) -> list[Tensor | None]:
    """Kept rows of every image."""
    if method == "blank-half":
        return [checks.blank_half(layout, s) for layout, s in zip(made.layouts, batch, strict=True)]
    if method == "no-newlines":
        return [checks.no_newlines(layout) for layout in made.layouts]
    if method == "random":  # another draw for every picture, so that the row does not rest on a few patterns
        return [
            None if layout is None or total is None else Random(sample.seed).select(_image(made, layout, total))
            for layout, total, sample in zip(made.placed, made.totals, batch, strict=True)
        ]
    return select(made, encoded)


def _image(made: Plan, layout: Layout, total: int) -> Image:
    """An image of the plan for a method that reads no attention."""
    return Image(layout, Attention(), total, made.newlines)


def _smaller(processor: Any, made: Plan, encoded: Encoded, batch: Sequence[Sample]) -> tuple[dict[str, Any], int]:
    """`generate`'s inputs with every picture shrunk to what HiRED would keep, and the tokens in all."""
    allowed = counts(made, select(made, encoded))
    features = [
        smaller.encode(made.model, processor, sample.image, tokens)
        for sample, tokens in zip(batch, allowed, strict=True)
    ]
    return (
        smaller.inputs(made, features, processor.tokenizer.pad_token_id or 0),
        sum(feature.shape[0] for feature in features),
    )


def generate(model: Any, processor: Any, settings: Settings, ready: Any) -> list[str]:
    """The answers, stripped of space and special tokens."""
    ids = greedy.generate(model, processor, ready, settings.max_new_tokens)
    return greedy.texts(processor, ids[:, ready["input_ids"].shape[1] :])
