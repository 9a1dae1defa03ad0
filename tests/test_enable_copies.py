"""Copies of an enabled model, and what others lay over it: nothing of ours stays, and nothing of theirs goes."""

import copy
import pickle
import types
from io import BytesIO
from typing import Any

import pytest
import torch
from accelerate import Accelerator

import hired
from hired import HiredError
from tests.support import models, pictures
from tests.support.enabling import SETTINGS, expected, fresh
from tests.support.reducing import every_family

COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": lambda model: torch.load(_saved(model), weights_only=False),
}


def _saved(model: Any) -> BytesIO:
    file = BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file


def prompt_length(model: Any, inputs: Any) -> int:
    """Tokens that the language model sees."""
    with torch.no_grad():
        return int(model(**inputs).logits.shape[1])


@every_family
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_plain_and_its_own(name: str, how: str) -> None:
    # Once a model has run, hooks of transformers' own cannot be pickled.
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    plain = models.shared(name).generate(**inputs, **SETTINGS)
    length = inputs["input_ids"].shape[1]
    with hired.enable(model, budget=0.25):
        made = COPIES[how](model)
        assert prompt_length(made, inputs) == length
        assert prompt_length(model, inputs) < length
    assert not {"generate", "forward", "__reduce_ex__"} & vars(made).keys()
    assert not made._forward_pre_hooks
    assert torch.equal(made.generate(**inputs, **SETTINGS), plain)
    with hired.enable(made, budget=0.25):
        assert torch.equal(made.generate(**inputs, **SETTINGS)[:, length:], expected(name, inputs))
    if how != "copy":  # which shares its weights
        with torch.no_grad():
            made.lm_head.weight.zero_()
            assert made(**inputs).logits.abs().max() == 0
            assert model(**inputs).logits.abs().max() > 0


@every_family
def test_data_parallel_is_refused(name: str) -> None:
    model = fresh(name)
    with hired.enable(model, budget=0.25), pytest.raises(HiredError, match="DataParallel"):
        model._replicate_for_data_parallel()
    with hired.enable(model, budget=1.0):
        replica = model._replicate_for_data_parallel()
        assert "forward" not in vars(replica)
        assert "forward" in vars(model)


@every_family
@pytest.mark.parametrize("over", ["the class's own", "the one it finds"])
def test_a_forward_that_others_replace_is_theirs(name: str, over: str) -> None:
    """As trainers do, who replace it by a wrapper of either."""
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    handle = hired.enable(model, budget=0.25)
    inner = types.MethodType(type(model).forward, model) if over == "the class's own" else model.forward
    calls = []

    def theirs(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return inner(*args, **kwargs)

    model.forward = theirs
    reduced = hired.reduce(models.shared(name), inputs, 0.25)
    with torch.no_grad():
        logits = model(**inputs).logits
        torch.testing.assert_close(logits, models.shared(name)(**reduced).logits)
    assert torch.equal(model.generate(**inputs, **SETTINGS)[:, inputs["input_ids"].shape[1] :], expected(name, inputs))
    handle.disable()
    assert vars(model)["forward"] is theirs
    assert "generate" not in vars(model)
    count = len(calls)
    assert prompt_length(model, inputs) == inputs["input_ids"].shape[1]
    assert len(calls) == count + 1
    with hired.enable(model, budget=0.25):  # over theirs
        assert prompt_length(model, inputs) == reduced["input_ids"].shape[1]
    assert vars(model)["forward"] is theirs


@every_family
def test_accelerator_prepare_and_unwrap(name: str) -> None:
    """Autocast that is laid over the shortened forward stays there, and comes off again."""
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    reduced = hired.reduce(model, inputs, 0.25)
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    handle = hired.enable(model, budget=0.25)
    made = accelerator.prepare(model)
    with torch.no_grad():
        mixed = made(**inputs).logits
    exact = models.shared(name)(**reduced).logits
    assert mixed.shape == exact.shape
    assert not torch.equal(mixed, exact), "autocast was lost"
    handle.disable()
    with torch.no_grad():
        whole = made(**inputs).logits
        plain = models.shared(name)(**inputs).logits
    assert whole.shape == plain.shape
    assert not torch.equal(whole, plain), "autocast was lost by disable()"
    bare = accelerator.unwrap_model(made, keep_fp32_wrapper=False)
    with torch.no_grad():
        torch.testing.assert_close(bare(**inputs).logits, plain)
    handle = hired.enable(bare, budget=0.25)
    made = accelerator.prepare(bare)
    bare = accelerator.unwrap_model(made, keep_fp32_wrapper=False)  # while enabled
    with torch.no_grad():
        torch.testing.assert_close(bare(**inputs).logits, exact)
    handle.disable()
    assert prompt_length(bare, inputs) == inputs["input_ids"].shape[1]


@every_family
def test_a_generate_that_others_replace_is_theirs(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    plain = model.generate(**inputs, **SETTINGS)
    handle = hired.enable(model, budget=0.25)
    inner = model.generate
    model.generate = theirs = lambda *args, **kwargs: inner(*args, **kwargs)
    assert torch.equal(model.generate(**inputs, **SETTINGS)[:, inputs["input_ids"].shape[1] :], expected(name, inputs))
    handle.disable()
    assert model.generate is theirs
    assert torch.equal(model.generate(**inputs, **SETTINGS), plain)
