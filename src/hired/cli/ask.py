"""``hired ask``: stream an answer, then say what it cost."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hired import greedy, images, prompts
from hired.cli import output, waiting
from hired.cli.options import check_settings
from hired.cli.question import check_tags, check_text
from hired.loading import Loaded
from hired.loading.strangers import strangers

if TYPE_CHECKING:
    from torch import Tensor

    from hired.reduction import ImageSelection

__all__ = ["Answer", "Settings", "answer", "run"]


@dataclass(frozen=True)
class Settings:
    """The options of ``hired ask``; see ``hired ask --help``."""

    image: str
    question: str
    model: str = "tiny"
    budget: int | float | str = 0.2
    alpha: float = 0.5
    method: str = "hired"
    variant: str = "paper"
    max_new_tokens: int = 64
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    view: Path | None = None
    as_json: bool = False


@dataclass(frozen=True)
class Answer:
    """What came out.

    Attributes:
        text: The answer.
        selection: The picture's entry of ``reduced.selection``.
        prompt_tokens: Tokens the language model was given, text and kept visual tokens.
        new_tokens: Tokens it generated.
        timings_ms: Milliseconds of ``preprocess``, ``encode``, ``select``, ``prefill`` (up to the first
            generated token) and ``decode`` (the rest).
    """

    text: str
    selection: ImageSelection
    prompt_tokens: int
    new_tokens: int
    timings_ms: dict[str, float]

    @property
    def first_token_ms(self) -> float:
        """Milliseconds from the start of preprocessing to the first generated token."""
        return sum(value for name, value in self.timings_ms.items() if name != "decode")

    @property
    def tokens_per_second(self) -> float | None:
        """Generated tokens a second after the first; None where there was only one."""
        if self.new_tokens < 2 or self.timings_ms["decode"] <= 0:
            return None
        return (self.new_tokens - 1) / (self.timings_ms["decode"] / 1e3)


class _Stream:
    """What `generate` calls a streamer: notes when tokens come, and passes their text on.

    Text is passed on once it can no longer change, so a character of several tokens comes out whole.
    """

    def __init__(self, tokenizer: Any, echo: bool) -> None:
        self.tokenizer = tokenizer
        self.echo = echo
        self.ids: list[int] = []
        self.first: float | None = None
        self.shown = ""
        self.prompt_seen = False

    def put(self, value: Tensor) -> None:
        """Take the prompt (first call, ignored) or the next token: (batch, length) or (batch,)."""
        if not self.prompt_seen:
            self.prompt_seen = True
            return
        self.ids += value.reshape(-1).tolist()
        if self.first is None:
            self.first = time.perf_counter()
        if self.echo:
            self._show(final=False)

    def end(self) -> None:
        """The answer is complete."""
        if self.echo:
            self._show(final=True)
            self._print("", "\n")

    def _show(self, final: bool) -> None:
        text = self.text()
        if (final or not text.endswith("\ufffd")) and text.startswith(self.shown):
            self._print(text[len(self.shown) :], "")
            self.shown = text

    def _print(self, words: str, end: str) -> None:
        """Print, but never stop the model: the line of costs fails in the same way, after all else is done."""
        if self.echo:
            try:
                print(words, end=end, flush=True)
            except OSError:
                self.echo = False

    def text(self) -> str:
        """Everything so far, without special tokens."""
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True)).lstrip()


def answer(loaded: Loaded, picture: Any, settings: Settings, echo: bool = False) -> Answer:
    """Answer one question about one picture, timing every stage.

    Args:
        loaded: The model.
        picture: The picture, RGB.
        settings: Question, budget and so on.
        echo: Print the answer while it comes.

    Raises:
        HiredError: The settings or the model do not allow it.
    """
    import torch

    from hired.costs.tokens import max_positions
    from hired.reduction import assemble, encode, plan, project, select

    greedy.end_tokens(loaded.model)  # an error of it should come before the work
    marks = [time.perf_counter()]

    def mark() -> None:
        loaded.synchronize()
        marks.append(time.perf_counter())

    words = prompts.prompt(loaded.processor, settings.question)
    inputs = prompts.inputs(loaded.model, loaded.processor, [words], [picture])
    mark()
    with strangers(loaded.name, "answer with", through=OSError), torch.inference_mode():
        planned = plan(
            loaded.model,
            inputs,
            check_settings(settings.budget, settings.alpha, settings.method, settings.variant),
            alpha=settings.alpha,
            method=settings.method,
            variant=settings.variant,
            images=[picture],
        )
        mark()
        encoded = encode(planned)
        mark()
        kept = select(planned, encoded)
        reduced = assemble(planned, encoded, kept, project(planned, encoded, kept))
        mark()
        output.warn_length(int(reduced["input_ids"].shape[1]), max_positions(loaded.model.config))
        stream = _Stream(loaded.processor.tokenizer, echo)
        ids = greedy.generate(loaded.model, loaded.processor, reduced, settings.max_new_tokens, stream)
        mark()
    start, prepared, planned_at, encoded_at, selected_at, end = marks
    first = stream.first if stream.first is not None else end
    prompt_tokens = int(reduced["input_ids"].shape[1])
    milliseconds = {
        "preprocess": prepared - start,
        "encode": encoded_at - planned_at,
        "select": (planned_at - prepared) + (selected_at - encoded_at),
        "prefill": first - selected_at,
        "decode": end - first,
    }
    return Answer(
        text=stream.text().strip(),
        selection=reduced.selection[0],
        prompt_tokens=prompt_tokens,
        new_tokens=int(ids.shape[1]) - prompt_tokens,
        timings_ms={name: round(1e3 * seconds, 3) for name, seconds in milliseconds.items()},
    )


def run(settings: Settings) -> None:
    """Print the answer and what it cost, or one JSON object; draw the view where asked for.

    Raises:
        HiredError: The picture, the model or the settings will not do, or the view cannot be written.
    """
    if settings.view is not None:
        output.check_picture_path(settings.view, settings.image)
    check_settings(settings.budget, settings.alpha, settings.method, settings.variant)
    check_text(settings.question)
    picture = images.load(settings.image)
    loaded = waiting.load(settings.model, settings.device, settings.dtype, settings.trust_remote_code)
    check_tags(loaded.processor, settings.question)
    result = answer(loaded, picture, settings, echo=not settings.as_json)
    memory = output.peak_memory_mb(loaded.kind)
    output.deliver(
        lambda: _print(settings, result, memory),
        *([] if settings.view is None else [partial(_draw, picture, settings, result, settings.view)]),
    )


def _draw(picture: Any, settings: Settings, result: Answer, path: Path) -> None:
    """Write the picture with what was kept of it, the question and the answer."""
    from hired.viz import draw

    output.save_picture(draw(picture, result.selection, note=f"{settings.question}  {result.text}"), path)


def _print(settings: Settings, result: Answer, memory: float | None) -> None:
    """One JSON object, or the line of costs below the answer."""
    if settings.as_json:
        print(json.dumps(_report(settings, result, memory)))
        return
    line = _costs(result, memory)
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(line, style="dim", markup=False, soft_wrap=True)
    else:
        print(line)


def _costs(result: Answer, memory: float | None) -> str:
    """One line: tokens, time to first token, speed, memory."""
    chosen, speed = result.selection, result.tokens_per_second
    parts = [
        f"{chosen.tokens_full:,} -> {chosen.tokens_kept:,} visual tokens",
        f"first token {result.first_token_ms:,.0f} ms",
        f"{speed:.1f} tokens/s" if speed is not None else "",
        f"peak {memory:,.0f} MB" if memory is not None else "",
    ]
    return " | ".join(part for part in parts if part)


def _report(settings: Settings, result: Answer, memory: float | None) -> dict[str, Any]:
    """What ``--json`` prints."""
    chosen = result.selection
    return {
        "answer": result.text,
        "model": settings.model,
        "budget": settings.budget,
        "images": [
            {
                "size": list(chosen.size) if chosen.size is not None else None,
                "grid": list(chosen.grid),
                "partitions": chosen.partitions,
                "tokens_full": chosen.tokens_full,
                "tokens_real": chosen.tokens_real,
                "tokens_kept": chosen.tokens_kept,
                "per_partition": [int(count) for count in chosen.per_partition],
            }
        ],
        "prompt_tokens": result.prompt_tokens,
        "timings_ms": result.timings_ms,
        "peak_memory_mb": memory,
        "versions": output.versions(),
    }
