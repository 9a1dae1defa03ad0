"""A picture encoded once; then answers to any question, at any budget, by any method."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hired import greedy, prompts
from hired.errors import InputsError
from hired.loading import Loaded
from hired.loading.strangers import strangers
from hired.machine import peak_memory_mb
from hired.methods import METHODS
from hired.questions import check_tags, check_text

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from hired.reduction import Encoded, ImageSelection, Plan

__all__ = ["ANY", "EMPTY", "Answer", "Choice", "Reader", "Seen"]

_DROPS = 2  # tokens: a budget under which every picture loses some, so that the encoder is read
ANY = "What is shown?"
"""Stands for the question where there is none; the encoder does not depend on it, nor do most methods."""
EMPTY = "the question is empty: write what you want to know of the picture"


@dataclass(frozen=True)
class Answer:
    """An answer and what it cost.

    Attributes:
        text: The answer.
        tokens: Visual tokens that the language model was given.
        prompt_tokens: All tokens that it was given.
        first_token_ms: Milliseconds up to the first token: prompt, encoder, choice and prefill.
        tokens_per_second: Of the tokens after the first; None where there was only one.
        cache_mb: Key-value cache at the end of the answer, MB (10^6 bytes).
        peak_mb: Most memory in use on the GPU meanwhile, MB; None on other devices, which cannot tell of one answer.
    """

    text: str
    tokens: int
    prompt_tokens: int
    first_token_ms: float
    tokens_per_second: float | None
    cache_mb: float
    peak_mb: float | None


class Seen:
    """A picture that was encoded, for every method.

    Attributes:
        picture: The picture, RGB.
        encoded: What the encoder gave.
        encode_ms: Milliseconds that it took.
    """

    def __init__(self, picture: Image, encoded: Encoded, encode_ms: float) -> None:
        self.picture, self.encoded, self.encode_ms = picture, encoded, encode_ms
        self._asked: tuple[str, Any, float] | None = None
        self._whole: tuple[str, Answer] | None = None


@dataclass(frozen=True)
class Choice:
    """Which tokens a method keeps of a picture.

    Attributes:
        selection: As `hired.reduce` reports it.
        ms: Milliseconds that the prompt, the plan and the choice took.
        whole: Whether all tokens are kept, and the answer is the untouched one.
    """

    selection: ImageSelection
    ms: float
    whole: bool
    _plan: Plan
    _kept: list[Tensor | None]


class Reader:
    """A model that answers, for several threads: one runs it at a time."""

    def __init__(self, loaded: Loaded, max_new_tokens: int = 64) -> None:
        """Take a model.

        Args:
            loaded: The model.
            max_new_tokens: The longest answer.

        Raises:
            ModelLoadError: The checkpoint does not tell what ends an answer.
        """
        from hired.costs.tokens import max_positions

        greedy.end_tokens(loaded.model)
        self.loaded, self.max_new_tokens = loaded, max_new_tokens
        self.positions: int | None = max_positions(loaded.model.config)
        self._lock = threading.Lock()
        self._warm = False

    def see(self, picture: Image) -> Seen:
        """Encode a picture.

        Raises:
            HiredError: The model cannot take it, or is of no known kind.
        """
        from hired.reduction import encode

        reads = {reading for method in METHODS.values() for reading in method.reads}
        with self._running():
            planned = self._plan(self._inputs(ANY, picture), picture, _DROPS)
            start = self._now()
            encoded = encode(planned, everything=True, reads=reads)
            seen = Seen(picture, encoded, 1e3 * (self._now() - start))
            if not self._warm:  # whatever runs first pays for what is set up once
                self._warm = True
                self._generate(planned, encoded, self._everything(planned), most=2)
        return seen

    def check(self, question: str) -> None:
        """Raise `InputsError` for a question that cannot be asked."""
        if not question.strip():
            raise InputsError(EMPTY)
        check_text(question)
        check_tags(self.loaded.processor, question)

    def choose(self, seen: Seen, question: str, budget: int | float | str, method: str) -> Choice:
        """Choose tokens; the encoder does not run.

        Args:
            seen: The picture.
            question: What is asked; some methods read it.
            budget: As in `hired.reduce`.
            method: A name in `hired.methods.METHODS`.

        Raises:
            HiredError: A setting out of range, or one that the model's family cannot do.
        """
        from hired.core.image import Attention
        from hired.reduction import ImageSelection, select

        self.check(question)
        with self._running():
            inputs, spent = self._asked(seen, question)
            start = self._now()
            planned = self._plan(inputs, seen.picture, budget, method)
            kept = select(planned, seen.encoded)
            spent += 1e3 * (self._now() - start)
            # As `hired.reduce` would report it, which reads nothing that its method does not need.
            first = seen.encoded.attention[0].first if planned.drops and "first" in planned.method.reads else None
            selection = ImageSelection.of(planned.layouts[0], kept[0], Attention(first))
        return Choice(selection, spent, kept[0] is None, planned, kept)

    def reduced(self, seen: Seen, question: str, choice: Choice) -> Answer:
        """Answer from the tokens that were chosen.

        Raises:
            HiredError: The model does not allow it.
        """
        if choice.whole:
            return self.untouched(seen, question)
        with self._running():
            return self._answer(seen, choice._plan, choice._kept, choice.ms)

    def untouched(self, seen: Seen, question: str) -> Answer:
        """Answer from all tokens; once for a picture and a question.

        Raises:
            HiredError: The model does not allow it.
        """
        self.check(question)
        with self._running():
            if seen._whole is None or seen._whole[0] != question:
                inputs, spent = self._asked(seen, question)
                # Planned as if tokens were dropped, and none is: so features take the place of pixels.
                planned = self._plan(inputs, seen.picture, _DROPS)
                seen._whole = (question, self._answer(seen, planned, self._everything(planned), spent))
            return seen._whole[1]

    def knows(self, seen: Seen, question: str) -> bool:
        """Whether `untouched` has its answer already."""
        return seen._whole is not None and seen._whole[0] == question

    def _running(self) -> Any:
        """The model for this thread alone, without gradients; what it raises is told as one error."""
        from contextlib import ExitStack

        import torch

        stack = ExitStack()
        stack.enter_context(self._lock)
        stack.enter_context(strangers(self.loaded.name, "answer with"))
        stack.enter_context(torch.inference_mode())
        return stack

    def _now(self) -> float:
        self.loaded.synchronize()
        return time.perf_counter()

    def _inputs(self, question: str, picture: Image) -> Any:
        words = prompts.prompt(self.loaded.processor, question)
        return prompts.inputs(self.loaded.model, self.loaded.processor, [words], [picture])

    def _asked(self, seen: Seen, question: str) -> tuple[Any, float]:
        """The processor's output for a question, made once, and the milliseconds that it took."""
        if seen._asked is None or seen._asked[0] != question:
            start = self._now()
            inputs = self._inputs(question, seen.picture)
            seen._asked = (question, inputs, 1e3 * (self._now() - start))
        return seen._asked[1], seen._asked[2]

    def _plan(self, inputs: Any, picture: Image, budget: Any, method: str = "hired") -> Plan:
        from hired.reduction import plan

        return plan(self.loaded.model, inputs, budget, method=method, images=[picture])

    def _everything(self, planned: Plan) -> list[Tensor | None]:
        """All tokens, by number; None where no budget drops any."""
        import torch

        return [torch.arange(planned.layouts[0].tokens_full) if planned.drops else None]

    def _generate(self, planned: Plan, encoded: Encoded, kept: list[Tensor | None], most: int) -> Any:
        """Inputs, ids, cache and what timed them."""
        from hired.reduction import assemble, project

        inputs = assemble(planned, encoded, kept, project(planned, encoded, kept))
        timed = _Timed(self._now())
        ids, cache = greedy.turn(self.loaded.model, self.loaded.processor, inputs, most, timed)
        return inputs, ids, cache, timed

    def _answer(self, seen: Seen, planned: Plan, kept: list[Tensor | None], spent: float) -> Answer:
        """An answer from kept tokens, and its costs; `spent` milliseconds went by before, besides the encoder's."""
        if self.loaded.kind == "cuda":
            _fresh_peak()
        start = self._now()
        inputs, ids, cache, timed = self._generate(planned, seen.encoded, kept, self.max_new_tokens)
        end = self._now()
        prompt = int(inputs["input_ids"].shape[1])
        new = int(ids.shape[1]) - prompt
        first = timed.first or end
        text = self.loaded.processor.tokenizer.decode(ids[0, prompt:], skip_special_tokens=True)
        return Answer(
            text=str(text).strip(),
            tokens=planned.layouts[0].tokens_full if kept[0] is None else int(kept[0].numel()),
            prompt_tokens=prompt,
            first_token_ms=spent + seen.encode_ms + 1e3 * (first - start),
            tokens_per_second=(new - 1) / (end - first) if new > 1 and end > first else None,
            cache_mb=_bytes(cache) / 1e6,
            peak_mb=peak_memory_mb("cuda") if self.loaded.kind == "cuda" else None,
        )


class _Timed:
    """What `generate` calls a streamer: notes when the first token comes, which the prompt does before it."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.first: float | None = None
        self._calls = 0

    def put(self, value: Tensor) -> None:
        self._calls += 1
        if self._calls == 2:
            self.first = time.perf_counter()

    def end(self) -> None:
        pass


def _bytes(cache: Any) -> int:
    """Bytes of all tensors in a key-value cache, whatever its layers hold."""
    from torch import Tensor

    layers = getattr(cache, "layers", ())
    return sum(t.numel() * t.element_size() for layer in layers for t in vars(layer).values() if isinstance(t, Tensor))


def _fresh_peak() -> None:
    """Count peak memory on all GPUs from now on."""
    import torch

    for index in range(torch.cuda.device_count()):
        torch.cuda.reset_peak_memory_stats(index)
