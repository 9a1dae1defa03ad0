"""What callbacks inside of `generate` see under `hired.enable`: the caller's own prompt, and nothing else."""

from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    MinLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    SuppressTokensAtBeginLogitsProcessor,
)
from transformers.generation.logits_process import MinNewTokensLengthLogitsProcessor

import hired
from tests.support import pictures
from tests.support.enabling import SETTINGS, expected, fresh
from tests.support.reducing import every_family

ROWS = [[(64, 64)], None]


class Seen(LogitsProcessor):  # type: ignore[misc]
    """Notes the ids of every step."""

    def __init__(self) -> None:
        self.ids: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.ids.append(input_ids.clone())
        return scores


class After(StoppingCriteria):  # type: ignore[misc]
    """Stops after so many tokens behind the prompt, as a caller counts them."""

    def __init__(self, prompt: int, tokens: int) -> None:
        self.prompt, self.tokens = prompt, tokens

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), input_ids.shape[1] - self.prompt >= self.tokens)


@every_family
@pytest.mark.parametrize("beams", [1, 3])
def test_processors_see_the_callers_prompt(name: str, beams: int) -> None:
    model, inputs = fresh(name), pictures.inputs(name, ROWS)
    prompt, seen = inputs["input_ids"], Seen()
    with hired.enable(model, budget=0.25):
        output = model.generate(**inputs, **SETTINGS, num_beams=beams, logits_processor=LogitsProcessorList([seen]))
    assert len(seen.ids) == SETTINGS["max_new_tokens"]
    for step, ids in enumerate(seen.ids):
        assert torch.equal(ids[:, : prompt.shape[1]], prompt.repeat_interleave(beams, 0))
        assert ids.shape[1] == prompt.shape[1] + step
    assert torch.equal(output[:, prompt.shape[1] :], expected(name, inputs, num_beams=beams))


@every_family
def test_stopping_criteria_count_from_the_callers_prompt(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, ROWS)
    length = inputs["input_ids"].shape[1]
    stop = [After(length, 3), lambda ids, scores, **_: torch.full((len(ids),), ids.shape[1] - length >= 5)]
    for criterion, tokens in zip(stop, (3, 5), strict=True):
        with hired.enable(model, budget=0.25):
            output = model.generate(**inputs, **SETTINGS, stopping_criteria=StoppingCriteriaList([criterion]))
        assert output.shape[1] == length + tokens
        assert torch.equal(output[:, length:], expected(name, inputs)[:, :tokens])


@every_family
def test_allowed_tokens_are_asked_for_by_the_callers_sequence(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, ROWS)
    prompt, asked = inputs["input_ids"], []

    def allowed(row: int, ids: torch.Tensor) -> list[int]:
        asked.append((row, ids.tolist()))
        return [10 + len(ids) - prompt.shape[1]]

    with hired.enable(model, budget=0.25):
        output = model.generate(**inputs, **SETTINGS, prefix_allowed_tokens_fn=allowed)
    assert output[:, prompt.shape[1] :].tolist() == [[10, 11, 12, 13, 14, 15]] * 2
    assert {(row, tuple(ids[: prompt.shape[1]])) for row, ids in asked} == {
        (row, tuple(ids)) for row, ids in enumerate(prompt.tolist())
    }


@every_family
def test_processors_of_transformers_count_from_the_callers_prompt(name: str) -> None:
    """Given by the caller with the caller's length, they do what they do to the shortened prompt with its length."""
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    reduced = hired.reduce(model, inputs, 0.25)
    long, short = inputs["input_ids"].shape[1], reduced["input_ids"].shape[1]
    first = int(expected(name, inputs)[0, 0])

    def made(length: int) -> list[list[Any]]:
        return [
            [RepetitionPenaltyLogitsProcessor(5.0, prompt_ignore_length=length)],
            [MinLengthLogitsProcessor(length + 3, first)],
            [MinNewTokensLengthLogitsProcessor(length, 2, first)],
            [SuppressTokensAtBeginLogitsProcessor([first], length)],
        ]

    changed = 0
    for theirs, ours in zip(made(long), made(short), strict=True):
        given = {**SETTINGS, "eos_token_id": first, "max_new_tokens": 5}
        with hired.enable(model, budget=0.25):
            output = model.generate(**inputs, **given, logits_processor=LogitsProcessorList(theirs))
        answer = model.generate(**reduced, **given, logits_processor=LogitsProcessorList(ours))
        assert output[:, long:].tolist() == answer[:, short:].tolist()
        plain = model.generate(**reduced, **given)
        changed += plain[:, short:].tolist() != answer[:, short:].tolist()
        lengths = [value for value in vars(theirs[0]).values() if isinstance(value, int) and value >= long]
        assert lengths, "the caller's own processor was changed"
    assert changed >= 3


@every_family
def test_a_criterion_of_transformers_takes_the_place_of_generates_own(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    length = inputs["input_ids"].shape[1]
    stop = StoppingCriteriaList([MaxLengthCriteria(length + 2)])
    plain = model.generate(**inputs, **SETTINGS, stopping_criteria=stop)
    with hired.enable(model, budget=0.25):
        output = model.generate(**inputs, **SETTINGS, stopping_criteria=stop)
    assert output.shape == plain.shape == (1, length + 2)
    assert stop[0].max_length == length + 2
