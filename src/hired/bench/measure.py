"""Timed runs: the untouched model, HiRED under each budget, and the parts that say what a budget allows."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from hired.bench import llama
from hired.bench.settings import Arm, Scene
from hired.bench.subject import Subject, inputs_for, pictures, text_for
from hired.caching import cache_of
from hired.reduction import Plan, assemble, encode, plan, project, select

__all__ = [
    "Job",
    "Sample",
    "attempt",
    "cache_bytes",
    "interleave",
    "is_out_of_memory",
    "jobs",
    "planned",
    "run_arm",
    "warm_up",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """One timed run, in seconds; None for what a run does not have.

    Attributes:
        encode: the vision encoder and projector.
        select: all else between the processor's output and the LLM.
        prefill: from there to the first token.
        decode: the tokens after the first.
        ttft: encode, select and prefill; of the untouched model measured as one.
        shares: tokens kept of each partition of the first picture, where the method divides them beforehand.
        length: tokens of the prompt that the LLM was given.
    """

    ttft: float
    decode: float | None = None
    encode: float | None = None
    select: float | None = None
    prefill: float | None = None
    shares: tuple[int, ...] | None = None
    length: int | None = None

    @property
    def total(self) -> float:
        """Everything that counts: to the first token, and the tokens after it."""
        return self.ttft + (self.decode or 0.0)


@dataclass(frozen=True)
class Job:
    """Something that is timed in every repeat.

    Attributes:
        name: "preprocess", "encoder", "text" or "arm".
        run: does it once.
        arm: of an "arm".
        length: prompt length of a "text".
    """

    name: str
    run: Callable[[], Sample]
    arm: Arm | None = None
    length: int | None = None


class _FirstToken(LogitsProcessor):  # type: ignore[misc]
    """Notes when the first token's logits are there."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.at: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.at is None:
            self.at = _now(self.subject)
        return scores


def _now(subject: Subject) -> float:
    subject.synchronize()
    return time.perf_counter()


def _generate(subject: Subject, inputs: Mapping[str, Any], new_tokens: int) -> tuple[float, float]:
    """(when the first token was there, when the last was)."""
    if subject.llm is not None:
        return llama.generate(subject, inputs, new_tokens)
    first = _FirstToken(subject)
    subject.model.generate(
        **inputs,
        max_new_tokens=new_tokens,
        logits_processor=LogitsProcessorList([first]),
    )
    end = _now(subject)
    return (end if first.at is None else first.at), end


def planned(subject: Subject, inputs: Mapping[str, Any], arm: Arm, **more: Any) -> Plan:
    """The plan of an arm, which knows how many tokens are kept; with `more` arguments of `hired.reduce`."""
    options: dict[str, Any] = {} if arm.encoder_budget is None else {"encoder_budget": arm.encoder_budget}
    return plan(subject.model, inputs, arm.budget, **options, **more)


def run_arm(subject: Subject, inputs: Mapping[str, Any], arm: Arm, new_tokens: int, **more: Any) -> Sample:
    """One run of an arm, from the processor's output to the last token; `more` as in `planned`."""
    start = _now(subject)
    if arm.full:
        first, end = _generate(subject, inputs, new_tokens)
        return Sample(ttft=first - start, decode=end - first, length=int(inputs["input_ids"].shape[1]))
    ready, shares, stages = _reduce(subject, inputs, arm, more)
    before = _now(subject)
    first, end = _generate(subject, ready, new_tokens)
    return Sample(
        ttft=first - start,
        decode=end - first,
        prefill=first - before,
        shares=None if shares is None else tuple(shares.tolist()),
        length=int(ready["input_ids"].shape[1]),
        **stages,
    )


def _reduce(
    subject: Subject, inputs: Mapping[str, Any], arm: Arm, more: Mapping[str, Any]
) -> tuple[Mapping[str, Any], torch.Tensor | None, dict[str, Any]]:
    """(what `generate` takes, the first picture's shares, seconds of the stages): `hired.reduce`, stage by stage."""
    marks = [_now(subject)]

    def mark() -> None:
        marks.append(_now(subject))

    made = planned(subject, inputs, arm, **more)
    mark()
    encoded = encode(made)
    mark()
    kept = select(made, encoded)
    mark()
    features = project(made, encoded, kept)
    mark()
    ready = assemble(made, encoded, kept, features)
    mark()
    planning, encoding, selecting, projecting, assembling = (b - a for a, b in pairwise(marks))
    shares = encoded.shares[0] if encoded.shares else None
    return ready, shares, {"encode": encoding + projecting, "select": planning + selecting + assembling}


def _run_encoder(subject: Subject, inputs: Mapping[str, Any]) -> Sample:
    """The untouched encoder and projector alone; beside llama.cpp, what encodes pictures of which all is kept."""
    if subject.llm is not None:
        start = _now(subject)
        encode(plan(subject.model, inputs, 1), everything=True)
        return Sample(ttft=_now(subject) - start)
    given = {key: inputs[key] for key in subject.family.image_keys}
    start = _now(subject)
    subject.model.get_image_features(**given, return_dict=True)
    return Sample(ttft=_now(subject) - start)


def warm_up(subject: Subject, text_tokens: int) -> None:
    """Two tokens after a short prompt, which pages the LLM's weights in."""
    _generate(subject, text_for(subject, 1, text_tokens), 2)


def _run_text(subject: Subject, prompt: Mapping[str, Any], new_tokens: int) -> Sample:
    """The untouched LLM on text alone."""
    start = _now(subject)
    first, end = _generate(subject, prompt, new_tokens)
    return Sample(ttft=first - start, decode=end - first)


def _run_preprocess(subject: Subject, images: list[Any], text_tokens: int) -> Sample:
    start = _now(subject)
    inputs_for(subject, images, text_tokens)
    return Sample(ttft=_now(subject) - start)


def jobs(
    subject: Subject, scene: Scene, arms: list[Arm], lengths: Mapping[Arm, int], new_tokens: int, text_tokens: int
) -> list[Job]:
    """What is timed in a scene: every arm, the untouched encoder, and the LLM on text of each arm's length.

    Args:
        subject: the model.
        scene: picture and batch.
        arms: the arms to run.
        lengths: prompt length of each arm, text and kept visual tokens.
        new_tokens: of every run.
        text_tokens: of the prompt.
    """
    images = pictures(scene)
    inputs = inputs_for(subject, images, text_tokens)
    made = [
        Job("preprocess", lambda: _run_preprocess(subject, images, text_tokens)),
        Job("encoder", lambda: _run_encoder(subject, inputs)),
    ]
    made += [Job("arm", lambda arm=arm: run_arm(subject, inputs, arm, new_tokens), arm=arm) for arm in arms]  # type: ignore[misc]
    for length in dict.fromkeys(lengths[arm] for arm in arms if not arm.full):
        prompt = text_for(subject, scene.batch, length)
        made.append(Job("text", lambda prompt=prompt: _run_text(subject, prompt, new_tokens), length=length))  # type: ignore[misc]
    return made


def interleave(
    todo: list[Job], repeats: int, warmup: int, advance: Callable[[], None] = lambda: None
) -> dict[int, list[Sample] | None]:
    """Runs all jobs in turn, `warmup` times untimed and `repeats` times timed, each time starting one job later.

    What disturbs the machine for a while so falls on all of them.

    Returns:
        By place in `todo` the samples of a job, None where it ran out of memory.
    """
    samples: dict[int, list[Sample] | None] = {index: [] for index in range(len(todo))}
    for turn in range(-warmup, repeats):
        shift = turn % len(todo)
        for index in [*range(shift, len(todo)), *range(shift)]:
            kept = samples[index]
            if kept is not None:
                sample = attempt(todo[index].run)
                if sample is None:
                    samples[index] = None
                elif turn >= 0:
                    kept.append(sample)
            advance()
    return samples


def attempt(run: Callable[[], T]) -> T | None:
    """What `run` returns, None where it ran out of memory."""
    try:
        with torch.inference_mode():
            return run()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    gc.collect()  # outside of the handler, which keeps the failed run's tensors alive
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; PyTorch has a class for it on GPUs only."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = str(error).lower()
    return any(phrase in words for phrase in ("can't allocate memory", "not enough memory", "out of memory"))


def cache_bytes(subject: Subject, inputs: Mapping[str, Any], arm: Arm, new_tokens: int, **more: Any) -> int:
    """Bytes of an arm's KV cache after prefill, all rows, read from the cache that `generate` filled.

    llama.cpp's is as large as it was made. `more` as in `planned`.
    """
    if not arm.full:
        inputs, _, _ = _reduce(subject, inputs, arm, more)
    if subject.llm is not None:
        return llama.cache_bytes(subject, inputs, new_tokens)
    output = subject.model.generate(**inputs, max_new_tokens=new_tokens, return_dict_in_generate=True)
    layers = [layer for layer in cache_of(output).layers if hasattr(layer, "keys")]  # no convolution's or the like
    total = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    cached = int(layers[0].keys.shape[-2])
    return int(total // cached * (cached - (new_tokens - 1)))
