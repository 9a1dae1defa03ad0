"""The answers about one picture: the untouched model's, and those under every method and budget."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hired import greedy, prompts
from hired.agreeing.samples import Sample
from hired.agreeing.settings import Settings
from hired.errors import BudgetError
from hired.families import family_of
from hired.reduction import Encoded, Plan, assemble, plan, project, select
from hired.reduction.entries import per_token
from hired.reduction.once import counts, encode_for

__all__ = ["Answered", "Outcome", "answered"]


@dataclass(frozen=True)
class Outcome:
    """One question under one method and budget.

    Attributes:
        answer: Greedy, stripped.
        tokens: Visual tokens the LLM was given.
        log_probability: Mean over the tokens of the untouched model's answer, its end included, of the natural
            logarithm of the probability that they are given; up to the first placeholder of a picture, where it holds
            one.
    """

    answer: str
    tokens: int
    log_probability: float


@dataclass(frozen=True)
class Answered:
    """One question.

    Attributes:
        sample: What was asked, of what.
        untouched: With every visual token.
        reduced: An entry for each of `Settings.jobs`, in its order.
    """

    sample: Sample
    untouched: Outcome
    reduced: tuple[Outcome, ...]


def answered(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    settings: Settings,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[Answered]:
    """Answers every question about one picture, which is encoded once for all methods, budgets and questions.

    The untouched model runs on the processor's own output, encoder and all. Rows are not batched: in a batch, other
    rounding alone changes an answer now and then.

    Args:
        model: A supported model, in eval mode.
        processor: Its processor.
        samples: Questions about the same picture.
        settings: What to measure.
        advance: Called after every answer, of which a question has one more than `Settings.jobs`.

    Yields:
        The questions in their order, each as soon as it is answered.

    Raises:
        HiredError: A picture or question that this model does not take, or a budget that leaves it no token.
    """
    image = samples[0].load()
    made = [_Asked(model, processor, sample, image, settings) for sample in samples]
    with torch.inference_mode():
        encoded = encode_for(made[0].planned("hired", 2), [each.method for each in made[0].plans])
    for each in made:
        with torch.inference_mode():  # not while others hold what is yielded
            found = each.answered(encoded, advance)
        yield found


class _Asked:
    """A question as inputs, and every plan for it: what can be wrong is found before anything runs."""

    def __init__(self, model: Any, processor: Any, sample: Sample, image: Image.Image, settings: Settings) -> None:
        self.model, self.processor, self.sample, self.image = model, processor, sample, image
        self.settings = settings
        words = prompts.prompt(processor, sample.question)
        self.inputs = prompts.inputs(model, processor, [words], [image])
        self.plans = [self._job(name, budget) for name, budget in settings.jobs()]

    def planned(self, method: Any, budget: int | float, inputs: Any = None) -> Plan:
        options = self.settings.keywords()
        given = self.inputs if inputs is None else inputs
        return plan(self.model, given, budget, method=method, images=[self.image], **options)

    def _job(self, name: str, budget: int | float) -> Plan:
        try:
            return self.planned(self.settings.method(name, self.sample.name), budget)
        except BudgetError as error:
            raise BudgetError(f"{self.sample.name}: {error}") from error

    def answered(self, encoded: Encoded, advance: Callable[[], None]) -> Answered:
        """The answers, given what the encoder made of the picture."""
        ids = self._generated(self.inputs)
        whole = self.planned("hired", 1)
        text, truth = self._text(ids), self._scored(ids)
        untouched = Outcome(text, sum(counts(whole, [None])), self._told(self._behind(truth), truth))
        advance()
        reduced = []
        for made, (_, budget) in zip(self.plans, self.settings.jobs(), strict=True):
            reduced.append(self._outcome(made, budget, encoded, truth, untouched))
            advance()
        return Answered(self.sample, untouched, tuple(reduced))

    def _outcome(self, made: Plan, budget: int | float, encoded: Encoded, truth: Tensor, untouched: Outcome) -> Outcome:
        kept = select(made, encoded)
        if all(rows is None for rows in kept):
            return untouched
        features = project(made, encoded, kept)
        # The tokens are chosen without the answer in sight; then it is put behind the prompt.
        longer = self.planned(made.method, budget, self._behind(truth))
        told = self._told(assemble(longer, encoded, kept, features), truth)
        answer = self._text(self._generated(assemble(made, encoded, kept, features)))
        return Outcome(answer, sum(counts(made, kept)), told)

    def _generated(self, inputs: Any) -> Tensor:
        """(1, A) ids of the greedy answer, its end included."""
        found = greedy.generate(self.model, self.processor, inputs, self.settings.max_new_tokens)
        return found[:, inputs["input_ids"].shape[1] :]

    def _text(self, ids: Tensor) -> str:
        return greedy.texts(self.processor, ids)[0]

    def _scored(self, ids: Tensor) -> Tensor:
        """An answer up to the first placeholder of a picture in it, which no model takes in a prompt as an answer."""
        found = (ids[0] == family_of(self.model).image_token(self.model)).nonzero().flatten().tolist()
        return ids[:, : found[0] + 1] if found else ids

    def _behind(self, truth: Tensor) -> dict[str, Any]:
        """The untouched inputs with an answer, but its last token, behind the prompt: what its tokens are told from."""
        data, ids = dict(self.inputs), truth[:, :-1]
        for name, value in per_token(data).items():
            data[name] = torch.cat((value, ids if name == "input_ids" else value.new_zeros(ids.shape)), 1)
        if data.get("attention_mask") is not None:
            data["attention_mask"] = torch.cat((data["attention_mask"], torch.ones_like(ids)), 1)
        return data

    def _told(self, inputs: Any, truth: Tensor) -> float:
        """Mean log-probability of an answer that `inputs` end with, in one pass."""
        options: dict[str, Any] = {"use_cache": False}
        count = truth.shape[1]
        if "logits_to_keep" in inspect.signature(type(self.model).forward).parameters:
            options["logits_to_keep"] = count
        logits = self.model(**inputs, **options).logits[:, -count:].float()
        return float(logits.log_softmax(-1).gather(-1, truth.to(logits.device)[..., None]).mean())
