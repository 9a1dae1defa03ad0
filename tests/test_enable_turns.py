"""Several calls with one cache under `hired.enable`, whose cache holds fewer tokens than the caller has seen."""

from typing import Any

import pytest
import torch
from transformers import StaticCache

import hired
from hired import InputsError
from hired.caching import cache_argument, cache_of
from tests.support import models, pictures
from tests.support.enabling import SETTINGS as USUAL
from tests.support.enabling import expected as usual
from tests.support.enabling import fresh
from tests.support.reducing import every_family

SETTINGS = {**USUAL, "suppress_tokens": [models.IMAGE_ID]}
"""No answer holds a placeholder, which would be taken for a picture's."""
MORE = torch.tensor([[9, 10, 11]])
FIRST, SECOND = [[(64, 64)]], [[(20, 70)]]


def expected(name: str, inputs: Any) -> torch.Tensor:
    return usual(name, inputs, suppress_tokens=[models.IMAGE_ID])


def answers(output: Any, prompt: torch.Tensor) -> list[list[int]]:
    sequences = output if isinstance(output, torch.Tensor) else output.sequences
    return sequences[:, prompt.shape[1] :].tolist()


def best(output: Any) -> torch.Tensor:
    """(batch, 1) the next token, as `SETTINGS` have it."""
    scores = output.logits[:, -1:].clone()
    scores[..., models.IMAGE_ID] = -torch.inf
    return scores.argmax(-1)


def by_hand(name: str, parts: list[Any]) -> list[list[int]]:
    """The answer to a conversation of reduced prompts and plain ids, run as one prompt."""
    model = models.shared(name)
    ids = torch.cat([part if isinstance(part, torch.Tensor) else part["input_ids"] for part in parts], 1)
    encoded = [part["mm_encoder_outputs"]["image"] for part in parts if not isinstance(part, torch.Tensor)]
    features = [feature for each in encoded for feature in each.pooler_output]
    together = type(encoded[0])(pooler_output=features)
    whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_encoder_outputs": {"image": together}}
    return answers(model.generate(**whole, **SETTINGS), ids)


@every_family
@pytest.mark.parametrize("new_ids_alone", [False, True])
@pytest.mark.parametrize("picture", [False, True])
def test_a_second_turn(name: str, picture: bool, new_ids_alone: bool) -> None:
    model, inputs = fresh(name), dict(pictures.inputs(name, FIRST))
    prompt = inputs["input_ids"]
    extra = dict(pictures.inputs(name, SECOND)) if picture else {"input_ids": MORE}
    new = extra.pop("input_ids")
    extra.pop("attention_mask", None)
    with hired.enable(model, budget=0.25):
        first = model.generate(**inputs, **SETTINGS, return_dict_in_generate=True)
        ids = torch.cat((first.sequences, new), 1)
        mask = torch.ones_like(ids)
        # The last token of an answer has not been run.
        given = ids[:, first.sequences.shape[1] - 1 :] if new_ids_alone else ids
        cache = {cache_argument(model): cache_of(first)}
        second = model.generate(input_ids=given, attention_mask=mask, **extra, **cache, **SETTINGS)
    assert torch.equal(second[:, : given.shape[1]], given)
    parts: list[Any] = [hired.reduce(models.shared(name), inputs, 0.25), first.sequences[:, prompt.shape[1] :]]
    parts.append(hired.reduce(models.shared(name), pictures.inputs(name, SECOND), 0.25) if picture else new)
    assert answers(second, given) == by_hand(name, parts)


@every_family
def test_a_third_turn_behind_a_picture(name: str) -> None:
    model, inputs = fresh(name), dict(pictures.inputs(name, FIRST))
    again = dict(pictures.inputs(name, SECOND))
    new = again.pop("input_ids")
    again.pop("attention_mask")
    with hired.enable(model, budget=0.25):
        output = model.generate(**inputs, **SETTINGS, return_dict_in_generate=True)
        said = [output.sequences[:, inputs["input_ids"].shape[1] :]]
        cache = {cache_argument(model): cache_of(output)}
        ids = torch.cat((output.sequences, new), 1)
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **again, **cache, **SETTINGS)
        said.append(output[:, ids.shape[1] :])
        ids = torch.cat((output, MORE), 1)
        third = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **cache, **SETTINGS)
    one, two = (hired.reduce(models.shared(name), pictures.inputs(name, rows), 0.25) for rows in (FIRST, SECOND))
    assert answers(third, ids) == by_hand(name, [one, said[0], two, said[1], MORE])


@every_family
@pytest.mark.parametrize("rows", [FIRST, [*FIRST, None]])
def test_a_cache_that_forward_made(name: str, rows: Any) -> None:
    """A decoding loop of the caller's own, and generate afterwards; masks are the caller's, of the whole prompt."""
    model, inputs = fresh(name), dict(pictures.inputs(name, rows))
    prompt, mask = inputs["input_ids"], inputs["attention_mask"]
    with torch.no_grad(), hired.enable(model, budget=0.25):
        output = model(**inputs, use_cache=True)
        said = []
        for _ in range(3):
            said.append(best(output))
            mask = torch.cat((mask, torch.ones_like(said[-1])), 1)
            cache = {cache_argument(model): cache_of(output)}
            output = model(input_ids=said[-1], attention_mask=mask, use_cache=True, **cache)
        said.append(best(output))
        told = torch.cat(said, 1)
        assert torch.equal(told, expected(name, inputs)[:, :4])
        if len(rows) > 1:
            return  # generate counts positions behind the padding, forward does not
        ids = torch.cat((prompt, told), 1)
        mask = torch.cat((mask, torch.ones_like(said[-1])), 1)
        cache = {cache_argument(model): cache_of(output)}
        rest = model.generate(input_ids=ids, attention_mask=mask, **cache, **{**SETTINGS, "max_new_tokens": 2})
    assert answers(rest, ids) == expected(name, inputs)[:, 4:].tolist()


@every_family
def test_a_static_cache_that_is_reset(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, FIRST)
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=inputs["input_ids"].shape[1] + 20)
    given = {cache_argument(model): cache}
    with hired.enable(model, budget=0.25):
        for _ in range(2):
            output = model.generate(**inputs, **SETTINGS, **given)
            assert answers(output, inputs["input_ids"]) == expected(name, inputs).tolist()
            cache.reset()


@every_family
def test_another_conversation_is_refused(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, FIRST)
    with hired.enable(model, budget=0.25):
        first = model.generate(**inputs, **SETTINGS, return_dict_in_generate=True)
        ids = torch.cat((first.sequences, MORE), 1)
        ids[0, 0] += 1
        cache = {cache_argument(model): cache_of(first)}
        with pytest.raises(InputsError, match="do not begin with the prompt"):
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **cache, **SETTINGS)
    with hired.enable(model, budget=0.25, positions="original"):
        first = model.generate(**inputs, **SETTINGS, return_dict_in_generate=True)
        ids = torch.cat((first.sequences, MORE), 1)
        cache = {cache_argument(model): cache_of(first)}
        with pytest.raises(InputsError, match="position_ids"):
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **cache, **SETTINGS)


@every_family
def test_a_new_picture_behind_a_cache_of_reduced_inputs(name: str) -> None:
    model = models.shared(name)
    one, two = (hired.reduce(model, pictures.inputs(name, rows), 0.25) for rows in (FIRST, SECOND))
    first = model.generate(**one, **SETTINGS, return_dict_in_generate=True)
    again = dict(pictures.inputs(name, SECOND))
    ids = torch.cat((first.sequences, again["input_ids"]), 1)
    whole = {**again, "input_ids": ids, "attention_mask": torch.ones_like(ids), cache_argument(model): cache_of(first)}
    with pytest.raises(InputsError, match="give attention_mask"):
        hired.reduce(model, {key: value for key, value in whole.items() if key != "attention_mask"}, 0.25)
    with pytest.raises(InputsError, match="do not fit"):
        hired.reduce(model, {**whole, "attention_mask": torch.ones(1, ids.shape[1] + 1)}, 0.25)
    reduced = hired.reduce(model, whole, 0.25)
    second = model.generate(**reduced, **SETTINGS)
    said = first.sequences[:, one["input_ids"].shape[1] :]
    assert answers(second, reduced["input_ids"]) == by_hand(name, [one, said, two])
