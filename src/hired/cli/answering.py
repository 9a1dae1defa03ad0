"""An answer about pictures, timed by stages; and answers to what is asked after it, on the cache that it left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hired import greedy, prompts
from hired.cli import output
from hired.loading import Loaded
from hired.loading.strangers import strangers
from hired.options import check_settings
from hired.questions import check_tags, check_text

if TYPE_CHECKING:
    from torch import Tensor

    from hired.reduction import ImageSelection

__all__ = ["Answer", "How", "answer", "costs", "follow", "pictures_of"]


@dataclass(frozen=True)
class How:
    """How pictures are reduced and questions answered.

    Attributes:
        budget, alpha, method, variant, newlines, encoder_budget: As in `hired.reduce`.
        max_new_tokens: Of an answer.
        system: A system message, None for the chat template's own.
    """

    budget: int | float | str = 0.2
    alpha: float = 0.5
    method: str = "hired"
    variant: str = "paper"
    newlines: str = "drop"
    encoder_budget: float | None = None
    max_new_tokens: int = 64
    system: str | None = None

    def check(self, *questions: str) -> None:
        """Raise `HiredError` for settings that no picture could do with, or texts that are none."""
        self.keywords()
        for question in questions:
            check_text(question)
        if self.system is not None:
            check_text(self.system, "system message")

    def check_for(self, processor: Any, *questions: str) -> None:
        """Raise `InputsError` for questions or a system message that this model's prompts give another meaning."""
        for question in questions:
            check_tags(processor, question)
        if self.system is not None:
            check_tags(processor, self.system, "system message")

    @property
    def reads_question(self) -> bool:
        """Whether the method compares with the question's words."""
        from hired.methods import resolve

        return "question" in resolve(self.method, self.variant, self.alpha).reads

    def keywords(self) -> dict[str, Any]:
        """Arguments of `hired.reduce`.

        Raises:
            BudgetError: Settings that no picture could do with.
        """
        budget = check_settings(self.budget, self.alpha, self.method, self.variant, self.newlines, self.encoder_budget)
        return {
            "budget": budget,
            "alpha": self.alpha,
            "method": self.method,
            "variant": self.variant,
            "newlines": self.newlines,
            "encoder_budget": self.encoder_budget,
        }


@dataclass(frozen=True)
class Answer:
    """What came out.

    Attributes:
        text: The answer.
        selections: `reduced.selection`, an entry a picture; none where a question follows another.
        prompt_tokens: Tokens the language model was given or had in its cache, text and kept visual tokens.
        new_tokens: Tokens it generated.
        timings_ms: Milliseconds of ``preprocess``, ``encode``, ``select``, ``prefill`` (up to the first
            generated token) and ``decode`` (the rest).
        ids: (1, prompt + new) the conversation so far, as reduced.
        cache: The key-value cache of all of it but the last token, or what finds it (`hired.loading.Loaded.turn`).
    """

    text: str
    selections: Sequence[ImageSelection]
    prompt_tokens: int
    new_tokens: int
    timings_ms: dict[str, float]
    ids: Tensor | None = None
    cache: Any = None

    @property
    def tokens_full(self) -> int:
        """Visual tokens of the untouched pictures."""
        return sum(each.tokens_full for each in self.selections)

    @property
    def tokens_kept(self) -> int:
        """Visual tokens that were kept."""
        return sum(each.tokens_kept for each in self.selections)

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


def answer(loaded: Loaded, pictures: Sequence[Any], question: str, how: How, echo: bool = False) -> Answer:
    """Answer one question about pictures, timing every stage.

    Args:
        loaded: The model.
        pictures: RGB, one or more.
        question: What is asked.
        how: Budget and so on.
        echo: Print the answer while it comes.

    Raises:
        HiredError: The settings or the model do not allow it.
    """
    import torch

    from hired.reduction import assemble, encode, plan, project, select

    greedy.end_tokens(loaded.model)  # an error of it should come before the work
    marks, mark = _clock(loaded)
    words = prompts.prompt(loaded.processor, question, len(pictures), how.system)
    inputs = prompts.inputs(loaded.model, loaded.processor, [words], pictures)
    mark()
    with strangers(loaded.name, "answer with", through=OSError), torch.inference_mode():
        planned = plan(loaded.model, inputs, **how.keywords(), images=list(pictures))
        mark()
        encoded = encode(planned)
        mark()
        kept = select(planned, encoded)
        reduced = assemble(planned, encoded, kept, project(planned, encoded, kept))
        mark()
        _warn_length(loaded, reduced["input_ids"])
        stream = _Stream(loaded.processor.tokenizer, echo)
        ids, cache = loaded.turn(reduced, how.max_new_tokens, stream)
        mark()
    start, prepared, planned_at, encoded_at, selected_at, end = marks
    first = stream.first if stream.first is not None else end
    timings = {
        "preprocess": prepared - start,
        "encode": encoded_at - planned_at,
        "select": (planned_at - prepared) + (selected_at - encoded_at),
        "prefill": first - selected_at,
        "decode": end - first,
    }
    return _answer(stream, reduced.selection, int(reduced["input_ids"].shape[1]), ids, cache, timings)


def follow(loaded: Loaded, before: Answer, question: str, how: How, echo: bool = False) -> Answer:
    """Answer a question that follows another, on the cache of the answer before, which is used up.

    Args:
        loaded: The model.
        before: What was answered last.
        question: What is asked now; the pictures are those of the first question.
        how: Of its settings, only how long the answer may be.
        echo: Print the answer while it comes.

    Raises:
        HiredError: The model's chat template takes no further question, or the model does not allow it.
    """
    import torch

    marks, mark = _clock(loaded)
    tail = _behind(loaded, before, prompts.follow_up(loaded.processor, question))
    with strangers(loaded.name, "answer with", through=OSError), torch.inference_mode():
        new = loaded.processor.tokenizer(tail, add_special_tokens=False, return_tensors="pt")["input_ids"]
        ids = torch.cat((before.ids, new.to(before.ids)), 1)  # type: ignore[arg-type]  # an answer's own
        inputs = loaded.further(ids, before.cache)
        mark()
        _warn_length(loaded, ids)
        stream = _Stream(loaded.processor.tokenizer, echo)
        all_ids, cache = loaded.turn(inputs, how.max_new_tokens, stream)
        mark()
    start, prepared, end = marks
    first = stream.first if stream.first is not None else end
    timings = {"preprocess": prepared - start, "prefill": first - prepared, "decode": end - first}
    return _answer(stream, [], int(ids.shape[1]), all_ids, cache, timings)


def _behind(loaded: Loaded, before: Answer, tail: str) -> str:
    """What goes behind an answer: without its end where the model said that itself."""
    last = int(before.ids[0, -1])  # type: ignore[index]  # an answer's own
    if before.new_tokens and last in (greedy.end_tokens(loaded.model) or []):
        said = str(loaded.processor.tokenizer.decode([last], skip_special_tokens=False))
        if said and tail.lstrip().startswith(said):
            return tail.lstrip()[len(said) :]
    return tail


def _clock(loaded: Loaded) -> tuple[list[float], Callable[[], None]]:
    """Moments, the first one now, and what notes another."""
    marks = [time.perf_counter()]

    def mark() -> None:
        loaded.synchronize()
        marks.append(time.perf_counter())

    return marks, mark


def _warn_length(loaded: Loaded, ids: Tensor) -> None:
    from hired.costs.tokens import max_positions

    output.warn_length(int(ids.shape[1]), max_positions(loaded.model.config))


def _answer(
    stream: _Stream, selections: Sequence[Any], prompt: int, ids: Tensor, cache: Any, seconds: dict[str, float]
) -> Answer:
    return Answer(
        text=stream.text().strip(),
        selections=selections,
        prompt_tokens=prompt,
        new_tokens=int(ids.shape[1]) - prompt,
        timings_ms={name: round(1e3 * value, 3) for name, value in seconds.items()},
        ids=ids,
        cache=cache,
    )


def costs(result: Answer, memory: float | None) -> str:
    """One line: tokens, time to first token, speed, memory."""
    speed = result.tokens_per_second
    parts = [
        f"{result.tokens_full:,} -> {result.tokens_kept:,} visual tokens"
        if result.selections
        else f"{result.prompt_tokens:,} tokens so far",
        f"first token {result.first_token_ms:,.0f} ms",
        f"{speed:.1f} tokens/s" if speed is not None else "",
        f"peak {memory:,.0f} MB" if memory is not None else "",
    ]
    return " | ".join(part for part in parts if part)


def pictures_of(result: Answer, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """What `--json` says of each picture.

    Args:
        result: The answer.
        names: What the pictures are called.
    """
    found = []
    for i, chosen in enumerate(result.selections):
        entry = {
            "size": list(chosen.size) if chosen.size is not None else None,
            "grid": list(chosen.grid),
            "partitions": chosen.partitions,
            "tokens_full": chosen.tokens_full,
            "tokens_real": chosen.tokens_real,
            "tokens_kept": chosen.tokens_kept,
            "per_partition": [int(count) for count in chosen.per_partition],
        }
        found.append(entry if names is None else {"name": names[i], **entry})
    return found
