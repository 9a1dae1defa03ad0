"""The instance under `hired.enable`, and what it is afterwards."""

import inspect
from typing import Any

import pytest
import torch
from accelerate import dispatch_model

import hired
from hired import BudgetError, InputsError, UnsupportedModelError
from tests.support import pictures
from tests.support.enabling import SETTINGS, expected, fresh, watch
from tests.support.reducing import MIXED, every_family


@every_family
def test_signatures_are_kept(name: str) -> None:
    model = fresh(name)
    before = [inspect.signature(getattr(model, method)) for method in ("generate", "forward")]
    docs = [model.generate.__doc__, model.forward.__doc__]
    with hired.enable(model, budget=0.25):
        assert [inspect.signature(getattr(model, method)) for method in ("generate", "forward")] == before
        assert [model.generate.__doc__, model.forward.__doc__] == docs
        assert model.generate.__name__ == "generate"


def snapshot(model: Any) -> dict[str, Any]:
    """What an instance holds, and what its class does."""
    own = {key: id(value) for key, value in vars(model).items()}
    own |= {f"class {key}": id(value) for key, value in vars(type(model)).items()}
    for key, module in model.named_modules():
        own[f"hooks {key}"] = (len(module._forward_hooks), len(module._forward_pre_hooks), type(module))
    return own | {"attention": model.model.vision_tower.config._attn_implementation}


@every_family
def test_the_instance_is_as_it_was(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    model.generate(**inputs, **SETTINGS)  # transformers leaves its own marks on first use
    before = snapshot(model)
    with hired.enable(model, budget=0.25):
        assert {"generate", "forward"} <= vars(model).keys()
        model.generate(**inputs, **SETTINGS)
    assert snapshot(model) == before
    assert "generate" not in vars(model)
    assert "forward" not in vars(model)


@every_family
def test_the_instance_is_as_it_was_after_an_exception(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    plain = model.generate(**inputs, **SETTINGS)
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError), hired.enable(model, budget=0.25):
        raise ZeroDivisionError
    assert snapshot(model) == before

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    with hired.enable(model, budget=0.25):
        hook = model.model.language_model.register_forward_pre_hook(fail)
        for call in (lambda: model.generate(**inputs, **SETTINGS), lambda: model(**inputs)):
            with pytest.raises(ZeroDivisionError):
                call()
        hook.remove()
        # Still in force, and still right.
        output = model.generate(**inputs, **SETTINGS)
        assert torch.equal(output[:, inputs["input_ids"].shape[1] :], expected(name, inputs))
    assert snapshot(model) == before
    assert torch.equal(model.generate(**inputs, **SETTINGS), plain)


@every_family
def test_bad_input_is_an_error_of_ours_before_the_model_runs(name: str) -> None:
    model, inputs = fresh(name), dict(pictures.inputs(name, [[(64, 64)]]))
    before = snapshot(model)
    for budget in (0, -1, 1.5, float("nan"), True, "0.2", None):
        with pytest.raises(BudgetError):
            hired.enable(model, budget=budget)  # type: ignore[arg-type]
    with pytest.raises(BudgetError):
        hired.enable(model, budget=0.2, alpha=2)
    with pytest.raises(UnsupportedModelError):
        hired.enable(torch.nn.Linear(1, 1), budget=0.2)
    assert snapshot(model) == before
    seen = watch(model)
    inputs["attention_mask"] = inputs["attention_mask"][:, :10]
    inputs["input_ids"] = inputs["input_ids"][:, :10]
    with hired.enable(model, budget=0.25):
        for call in (lambda: model.generate(**inputs, **SETTINGS), lambda: model(**inputs)):
            with pytest.raises(InputsError, match="truncated"):
                call()
    assert not seen


@every_family
def test_other_instances_are_untouched(name: str) -> None:
    model, other = fresh(name), fresh(name)
    inputs = pictures.inputs(name, [[(64, 64)]])
    plain = other.generate(**inputs, **SETTINGS)
    before = snapshot(other)
    seen = watch(other)
    with hired.enable(model, budget=0.1):
        assert torch.equal(other.generate(**inputs, **SETTINGS), plain)
        assert {key for key, value in snapshot(other).items() if before[key] != value} <= {
            "hooks model.vision_tower",
            "hooks model.language_model",  # those of `watch`
        }
    assert seen[1] == inputs["input_ids"].shape[1]


@every_family
def test_the_callers_mapping_is_not_changed(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, MIXED)
    before = {key: value.clone() for key, value in inputs.items()}
    with hired.enable(model, budget=0.25):
        model.generate(**inputs, **SETTINGS, num_beams=2)
    assert inputs.keys() == before.keys()
    assert all(torch.equal(inputs[key], value) for key, value in before.items())


@every_family
def test_accelerate_hooks_are_kept(name: str) -> None:
    model = dispatch_model(fresh(name), device_map={"": "cpu"}, force_hooks=True)
    inputs = pictures.inputs(name, MIXED)
    calls = []
    hook = model._hf_hook
    inner = hook.pre_forward
    hook.pre_forward = lambda *args, **kwargs: calls.append(1) or inner(*args, **kwargs)
    forward, old = model.forward, model._old_forward
    plain = model.generate(**inputs, **SETTINGS)
    runs = len(calls)
    assert runs == 6
    with hired.enable(model, budget=0.25):
        output = model.generate(**inputs, **SETTINGS)
        assert model._hf_hook is hook
    assert len(calls) == 2 * runs, "the hook did not run for every step"
    assert torch.equal(output[:, inputs["input_ids"].shape[1] :], expected(name, inputs))
    assert model.forward is forward
    assert model._old_forward == old
    assert torch.equal(model.generate(**inputs, **SETTINGS), plain)
