"""A language model in a GGUF file, run by llama.cpp on what `hired.reduce` kept."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hired import greedy
from hired.errors import HiredError, InputsError, ModelLoadError
from hired.files import one_line
from hired.gguf.architectures import TextFacts, architecture_named, text_facts
from hired.gguf.header import read_header
from hired.gguf.llama import Context, Model, Sampler, library
from hired.gguf.matching import check_known, check_matches, foreign_tokens
from hired.gguf.prompt import Prompt, read_prompt
from hired.gguf.tower import processor_of
from hired.options import MOST_TOKENS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LLM"]


class LLM:
    """A language model in a GGUF file.

    Pictures are encoded and reduced in torch, by the tower of the checkpoint that the file's model is of; llama.cpp
    runs on the kept tokens. Only the memory that the reduced prompt needs is taken for the key-value cache. The cache
    of the last prompt and its answer stays: a prompt that goes on from them is computed from there.

    Args:
        file: The GGUF file.
        tower: The model that prompts are reduced for, from `hired.gguf.load_tower`; then the file is compared with its
            checkpoint at once, and inputs from a pickle can be used. None: both are found with every prompt.
        processor: Its processor or tokenizer, for stop strings and a comparison with the file's vocabulary; None for
            the one that the tower came with.
        threads: Of the computation; None for as many as torch uses, by default one for every physical core.
        context: Tokens of prompt and answer that the cache always has room for, at most; None to follow the prompts.
        exact: Compute in float32 as far as the weights are, without fused attention and repacked weights: for tests.

    Raises:
        ModelLoadError: The file cannot be read, holds no whole model or another one than the tower's checkpoint.
        UnsupportedModelError: Its architecture is not known here, or the tower's language model to llama.cpp.
        MissingDependencyError: The extra `gguf` is not installed.
        HiredError: A setting out of its range.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        tower: Any = None,
        processor: Any = None,
        threads: int | None = None,
        context: int | None = None,
        *,
        exact: bool = False,
    ) -> None:
        _check_whole("threads", threads, 1, 1024)
        _check_whole("context", context, 1, MOST_TOKENS)
        library()
        self.path = _path(file)
        self.header = read_header(self.path)
        check_known(self.header)
        self.threads = torch.get_num_threads() if threads is None else threads
        self.room = context
        self._mutual = architecture_named(self.header.architecture).mutual
        self._tower, self._processor = tower, processor
        self._matched: set[TextFacts] = set()
        self._foreign: tuple[Any, frozenset[int]] = (None, frozenset())
        self._lock = threading.RLock()
        self._context: Context | None = None
        self._held = _Held()
        if tower is not None:
            self._check(tower)
        self._model = Model(self.path, exact=exact)

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LLM({one_line(self.path)!r})"

    def close(self) -> None:
        """Gives the memory back; the LLM cannot be used any more."""
        with self._lock:
            self.forget()
            self._model.close()

    def forget(self) -> None:
        """Gives the key-value cache back; the next prompt is computed whole."""
        with self._lock:
            if self._context is not None:
                self._context.close()
            self._context, self._held = None, _Held()

    @property
    def held(self) -> int:
        """Tokens in the key-value cache."""
        return len(self._held.ids)

    @property
    def context_size(self) -> int:
        """Tokens that the key-value cache has room for; 0 before the first prompt."""
        return 0 if self._context is None else self._context.size

    def generate(
        self,
        reduced: Any,
        max_new_tokens: int = 64,
        stop: str | Sequence[str] | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        streamer: Any = None,
    ) -> Tensor:
        """Answers one prompt.

        The answer ends behind a token that ends answers, as the checkpoint or else the file names them, behind a stop
        string, at `max_new_tokens`, and where the model has no more positions.

        Args:
            reduced: What `hired.reduce` returned for one prompt, with any number of pictures.
            max_new_tokens: The longest answer.
            stop: Texts that end it; they are part of it.
            temperature: 0 for the best token each time, as greedy search has it; else by what logits are divided before
                one is drawn.
            top_p: Draw among the most probable tokens that make up this share.
            seed: Of the draws, for the same answer again; None for another one each time.
            streamer: Told of the prompt and of every token, as transformers' `generate` does: `put`, then `end`.

        Returns:
            (1, prompt + new) int64, on the device of `input_ids`.

        Raises:
            InputsError: Inputs that are of several prompts, do not fit the file, or are longer than the model takes.
            ModelLoadError: The file is of another language model than the inputs' checkpoint.
            UnsupportedModelError: The checkpoint's language model does not run on llama.cpp.
            HiredError: A setting out of its range, or llama.cpp fails.
        """
        _check_whole("max_new_tokens", max_new_tokens, 1, MOST_TOKENS)
        stops = _stops(stop)
        sampler = _sampler(temperature, top_p, seed)
        with self._lock:
            model, prompt, most = self._prompt(reduced)
            ends = self._ends(model)
            texts = self._texts(model) if stops else None
            most = min(most, len(prompt.ids) + max_new_tokens)
            context = self._fed(prompt, most)
            if streamer is not None:
                streamer.put(prompt.shown.cpu())
            new: list[int] = []
            try:
                while True:
                    new.append(sampler.next(context))
                    if streamer is not None:
                        streamer.put(torch.tensor(new[-1:]))
                    if new[-1] in ends or len(prompt.ids) + len(new) >= most:
                        break
                    if texts is not None and _ended(texts, new, stops):
                        break
                    self._feed_new(context, prompt, new)
            except BaseException:
                self.forget()
                raise
            if streamer is not None:
                streamer.end()
        shown = prompt.shown.to(torch.int64)
        return torch.cat((shown, torch.tensor([new], device=shown.device)), 1)

    def next_logits(self, reduced: Any) -> Tensor:
        """(vocabulary,) float32 logits of the token behind a prompt; the vocabulary is the file's.

        Arguments and errors are those of `generate`.
        """
        with self._lock:
            _, prompt, _ = self._prompt(reduced)
            return torch.from_numpy(self._fed(prompt, len(prompt.ids)).logits().copy())

    def _prompt(self, reduced: Any) -> tuple[Any, Prompt, int]:
        """The model that a prompt was reduced for, the prompt, and how many tokens there can be with the answer.

        Everything that can be wrong with them is found here: C code would end the process.
        """
        model = getattr(reduced, "model", None)
        model = self._tower if model is None else model
        if model is None:
            raise InputsError(
                "these inputs do not tell what they were reduced for: pass what hired.reduce returned while the tower"
                " is there, or the tower itself, hired.gguf.LLM(FILE, tower=tower)"
            )
        facts, foreign = self._check(model)
        prompt = read_prompt(reduced, model, self._model.axes, self._model.width)
        text, ids = prompt.text, self._model.ids
        outside = text[(text < 0) | (text >= ids)]
        if len(outside):
            wrong = int(outside[0])
            raise InputsError(
                f"the prompt holds token {wrong:,} and {one_line(self.path)} has {ids:,}: the two are not of one"
                " checkpoint, or the file was converted without the checkpoint's added tokens"
            )
        if foreign and (met := foreign.intersection(text.tolist())):
            raise InputsError(
                f"the prompt holds token {min(met):,}, which is another one in {one_line(self.path)}: the file was"
                " converted without the checkpoint's added tokens"
            )
        most = min(facts.context, self._model.positions)
        # Positions are what a model has a limit of: pictures take fewer of them than tokens under M-RoPE.
        most += len(prompt.ids) - prompt.follows
        if self.room is not None and self.room < most:
            most = self.room
        if len(prompt.ids) >= most:
            limit = f"context={self.room}" if most == self.room else f"the {facts.context:,} tokens of this model"
            raise InputsError(
                f"the prompt of {len(prompt.ids):,} tokens leaves no room for an answer within {limit}: use a smaller"
                " budget or a shorter prompt"
            )
        return model, prompt, most

    def _check(self, model: Any) -> tuple[TextFacts, frozenset[int]]:
        """What a model's language model is, and the ids that mean something else in the file; once a checkpoint."""
        facts = text_facts(model)
        if facts not in self._matched:
            check_matches(self.header, facts)
            self._matched.add(facts)
        tokenizer = self._tokenizer(model)
        if tokenizer is not None and tokenizer is not self._foreign[0]:
            self._foreign = (tokenizer, foreign_tokens(self.header, tokenizer))
        return facts, frozenset() if tokenizer is None else self._foreign[1]

    def _tokenizer(self, model: Any) -> Any:
        """The tokenizer of a model, None where it is not known."""
        processor = processor_of(model) if self._processor is None else self._processor
        return getattr(processor, "tokenizer", processor)

    def _ends(self, model: Any) -> frozenset[int]:
        """Ids that end an answer."""
        named = greedy.end_tokens(model) if getattr(model, "generation_config", None) is not None else None
        return frozenset(self.header.end_tokens if named is None else named)

    def _texts(self, model: Any) -> Callable[[list[int]], str]:
        """What tells the text of tokens."""
        tokenizer = self._tokenizer(model)
        if tokenizer is not None:
            return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True))
        if self.header.tokens is not None:
            return lambda ids: b"".join(map(self._model.piece, ids)).decode("utf-8", "replace")
        raise InputsError(
            "stop needs the text of tokens, which this file does not hold: LLM(FILE, processor=processor)"
        )

    def _fed(self, prompt: Prompt, most: int) -> Context:
        """A context that has computed the prompt and has room for `most` tokens."""
        try:
            goes_on = prompt.goes_on_from(self._held.ids, self._held.positions, self._held.digests)
            context = self._roomy(most, goes_on)
            if not goes_on:
                context.clear()
                self._held = _Held()
            start = len(self._held.ids)
            for run in prompt.runs:
                if run.end <= start:
                    continue
                places, last = prompt.positions[:, max(run.start, start) : run.end], run is prompt.runs[-1]
                if run.rows is None:
                    context.feed_ids(prompt.ids[max(run.start, start) : run.end], places[0], last)
                else:
                    context.feed_rows(run.rows, places, last, self._mutual)
            digests = [run.digest for run in prompt.runs if run.rows is not None]
            self._held = _Held(prompt.ids, prompt.positions, digests)
            return context
        except BaseException:
            self.forget()
            raise

    def _roomy(self, most: int, goes_on: bool) -> Context:
        """A context of at least `most` tokens, with what is held where the prompt goes on from it."""
        context = self._context
        if context is not None and context.size >= most:
            return context
        state = context.state() if context is not None and goes_on else None
        if context is not None:
            context.close()
        room = min(self.room or 0, self._model.positions)
        self._context = Context(self._model, max(most, room), self.threads)
        if state is not None:
            self._context.restore(state)
        return self._context

    def _feed_new(self, context: Context, prompt: Prompt, new: list[int]) -> None:
        """Computes the last one of the new tokens."""
        ids = np.array(new[-1:], np.int32)
        place = prompt.follows + len(new) - 1
        places = np.zeros((len(prompt.positions), 1), np.int32)
        places[:3] = place
        context.feed_ids(ids, places[0], True)
        self._held = self._held.then(ids, places)


class _Held:
    """What a key-value cache holds.

    Attributes:
        ids: (held,) int32.
        positions: (axes, held) int32.
        digests: of its visual tokens, one a run.
    """

    def __init__(
        self, ids: np.ndarray | None = None, positions: np.ndarray | None = None, digests: Sequence[bytes] = ()
    ) -> None:
        self.ids = np.empty(0, np.int32) if ids is None else ids
        self.positions = np.empty((1, 0), np.int32) if positions is None else positions
        self.digests = list(digests)

    def then(self, ids: np.ndarray, positions: np.ndarray) -> _Held:
        """With text behind it."""
        return _Held(np.concatenate((self.ids, ids)), np.concatenate((self.positions, positions), 1), self.digests)


def _path(file: Any) -> Path:
    """The path of a file as named."""
    try:
        return Path(file)
    except TypeError:
        raise ModelLoadError(f"name a .gguf file, not {type(file).__name__}") from None


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    """Raises `HiredError` for what is no whole number in the range; None is one."""
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise HiredError(f"{name}={value!r}: use a whole number from {least:,} to {most:,}")


def _sampler(temperature: float, top_p: float, seed: int | None) -> Sampler:
    """The sampler of the settings."""
    for name, value, low, high in (("temperature", temperature, 0.0, 1e4), ("top_p", top_p, 0.0, 1.0)):
        real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not real or not low <= value <= high or (name == "top_p" and value == 0):
            raise HiredError(f"{name}={value!r}: use a number from 0 to {high:g}{', not 0' if name == 'top_p' else ''}")
    _check_whole("seed", seed, 0, 2**32 - 2)
    return Sampler(float(temperature), float(top_p), seed)


def _stops(stop: str | Sequence[str] | None) -> list[str]:
    """Stop strings, none of them empty."""
    found = [] if stop is None else [stop] if isinstance(stop, str) else list(stop)
    if not all(isinstance(each, str) and each for each in found):
        raise HiredError(f"stop={stop!r:.80}: use a text or a list of texts, none of them empty")
    return found


def _ended(texts: Callable[[list[int]], str], new: list[int], stops: list[str]) -> bool:
    """Whether the last token completed a stop string. A token may be less than a character."""
    longest = max(len(each.encode()) for each in stops)
    tail = texts(new[-(longest + 8) :])
    return any(each in tail for each in stops)
