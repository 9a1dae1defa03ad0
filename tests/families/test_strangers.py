"""What callers do to every family's models and inputs before the library sees them."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

import hired
from hired import InputsError
from hired.encoding.altered import altered
from hired.families import family_of
from tests.families.test_contract import kept, rows_of
from tests.support import models, pictures
from tests.support.models import ALL
from tests.support.watching import unnoticed

each_family = pytest.mark.parametrize("name", ALL)
GREEDY = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "max_new_tokens": 3}
CLOSE = {"atol": 3e-4, "rtol": 2e-3}


def inputs_of(name: str, side: str = "left") -> dict[str, Any]:
    return dict(pictures.inputs(name, rows_of(name), side=side))


def logits(model: Any, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**inputs).logits
    return found


def labelled(name: str, side: str = "right") -> dict[str, Any]:
    """Inputs with labels at text alone."""
    inputs = inputs_of(name, side)
    token = family_of(models.shared(name)).image_token(models.shared(name))
    masked = (inputs["attention_mask"] == 0) | (inputs["input_ids"] == token)
    return {**inputs, "labels": inputs["input_ids"].masked_fill(masked, -100)}


# --- A budget of 1 --------------------------------------------------------------------------------------------------


@each_family
def test_a_budget_of_one_hands_on_what_it_was_given(name: str) -> None:
    model, inputs = models.shared(name), inputs_of(name)
    odd = {"input_ids": "anything", "pixel_values_videos": 3, "inputs_embeds": None}
    for given in (inputs, odd, {}):
        whole = hired.reduce(model, given, 1.0)
        assert dict(whole) == given
        assert all(whole[key] is value for key, value in given.items())
    assert hired.reduce(model, odd, 1.0).selection == []
    assert [entry.share_kept for entry in hired.reduce(model, inputs, 1).selection] == [1.0] * 3
    everything = hired.reduce(model, inputs, 10_000)
    assert all(everything[key] is value for key, value in inputs.items())
    assert everything.keys() == inputs.keys()


@each_family
@pytest.mark.parametrize("budget", [1.0, 10_000])
def test_outputs_and_gradients_are_those_of_the_untouched_model(name: str, budget: float) -> None:
    model, inputs = ALL[name].model(), labelled(name)

    def run() -> tuple[Any, dict[str, torch.Tensor]]:
        model.zero_grad()
        output = model(**inputs, output_hidden_states=True)
        output.loss.backward()
        return output, {key: value.grad for key, value in model.named_parameters() if value.grad is not None}

    plain, gradients = run()
    with hired.enable(model, budget):
        output, found = run()
    assert torch.equal(output.loss, plain.loss)
    assert output.keys() == plain.keys()
    assert all(torch.equal(one, other) for one, other in zip(output.hidden_states, plain.hidden_states, strict=True))
    assert found.keys() == gradients.keys()
    assert all(torch.equal(value, gradients[key]) for key, value in found.items())


# --- Arguments of a call --------------------------------------------------------------------------------------------


@each_family
@pytest.mark.parametrize(
    ("argument", "value"),
    [("vision_feature_layer", -1), ("vision_feature_select_strategy", "full"), ("vision_aspect_ratio", "anyres_max_2")],
)
def test_arguments_that_change_the_encoder_are_refused_or_the_usual(name: str, argument: str, value: Any) -> None:
    model, inputs = models.shared(name), inputs_of(name)
    usual = getattr(model.config, argument, None)
    value = "default" if value == usual == "full" else -3 if value == usual else value
    with pytest.raises(InputsError, match=f"{argument}=.* in a call is not supported under a budget"):
        hired.reduce(model, {**inputs, argument: value}, 0.3)
    with hired.enable(other := ALL[name].model(), 0.3), pytest.raises(InputsError, match=argument):
        other(**inputs, **{argument: value})
    if usual is not None:
        reduced = hired.reduce(model, {**inputs, argument: usual}, 0.3)
        assert kept(reduced) == kept(hired.reduce(model, inputs, 0.3))


@each_family
def test_what_a_shortened_prompt_cannot_have(name: str) -> None:
    model, inputs = ALL[name].model(), inputs_of(name)
    ids = inputs["input_ids"]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"inputs_embeds": torch.zeros(*ids.shape, 8)}, "inputs_embeds hold no placeholders"),
        ({"logits_to_keep": torch.tensor([3])}, "logits_to_keep"),
        ({"attention_mask": torch.ones(3, 1, ids.shape[1], ids.shape[1])}, "attention_mask must be"),
        ({"labels": ids[:, 1:]}, "labels must be"),
        ({"position_ids": torch.arange(3)[None]}, "position_ids must be"),
    ]
    for change, match in wrong:
        with pytest.raises(InputsError, match=match):
            hired.reduce(model, {**inputs, **change}, 0.3)
        with hired.enable(model, 0.3), pytest.raises(InputsError, match=match):
            model(**{**inputs, **change})


@each_family
def test_sizes_in_any_form(name: str) -> None:
    """`image_sizes` as a list, an array or a list of tensors, where the untouched model takes them."""
    model, inputs = models.shared(name), inputs_of(name)
    if "image_sizes" not in family_of(model).image_keys:
        pytest.skip("its inputs hold no sizes")
    sizes = inputs["image_sizes"]
    expected = hired.reduce(model, inputs, 0.3)
    for form in (sizes.tolist(), sizes.numpy(), list(sizes), [np.array(size) for size in sizes.tolist()]):
        given = {**inputs, "image_sizes": form}
        try:
            logits(model, given)
        except (TypeError, AttributeError, ValueError):
            continue
        assert kept(hired.reduce(model, given, 0.3)) == kept(expected)
        with hired.enable(other := ALL[name].model(), 0.3):
            torch.testing.assert_close(logits(other, given), logits(model, expected))


@each_family
def test_partitions_of_all_pictures_one_behind_the_other(name: str) -> None:
    model, inputs = models.shared(name), inputs_of(name)
    pixels = inputs["pixel_values"]
    expected = hired.reduce(model, inputs, 0.3)
    if pixels.dim() != 5 or "image_sizes" not in family_of(model).image_keys:
        pytest.skip("its pixels are flat, or cannot be")
    counts = [entry.partitions for entry in expected.selection]
    flat = torch.cat([each[:count] for each, count in zip(pixels, counts, strict=True)])
    given = {**inputs, "pixel_values": flat}
    torch.testing.assert_close(logits(model, given), logits(model, inputs))
    reduced = hired.reduce(model, given, 0.3)
    assert kept(reduced) == kept(expected)
    torch.testing.assert_close(logits(model, reduced), logits(model, expected), **CLOSE)
    with pytest.raises(InputsError, match="too many partitions"):
        hired.reduce(model, {**given, "pixel_values": torch.cat((flat, flat[:1]))}, 0.3)


@each_family
def test_a_picture_whose_tokens_are_all_masked(name: str) -> None:
    model, inputs = models.shared(name), inputs_of(name)
    token = family_of(model).image_token(model)
    mask = inputs["attention_mask"] * (inputs["input_ids"] != token)
    reduced = hired.reduce(model, {**inputs, "attention_mask": mask}, 0.3)
    assert reduced["attention_mask"].sum(1).tolist() == mask.sum(1).tolist()
    new = model.generate(**reduced, **GREEDY, num_beams=2)
    assert new.shape == (3, reduced["input_ids"].shape[1] + 3)


# --- What has been done to the model --------------------------------------------------------------------------------


def doubled(module: Any) -> Any:
    """A forward hook on a module, which changes what it gives."""

    def hook(_: Any, __: Any, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return output * 2
        changed = copy.copy(output)
        for key, value in changed.items():
            if isinstance(value, torch.Tensor):
                changed[key] = value * 2
            elif isinstance(value, tuple) and all(isinstance(each, torch.Tensor) for each in value):
                changed[key] = tuple(each * 2 for each in value)
        return changed

    return module.register_forward_hook(hook)


def parts(model: Any) -> dict[str, Any]:
    """The children of a model's core but its language model: encoder, projector."""
    core = model.base_model
    return {name: part for name, part in core.named_children() if name not in ("language_model", "text_model")}


@each_family
def test_hooks_of_the_callers_act_under_a_budget_too(name: str) -> None:
    """Kept tokens have the features that the hooked model gives, as for a budget of 1."""
    inputs = inputs_of(name)
    for part in parts(models.shared(name)):
        model = ALL[name].model()
        plain = hired.reduce(model, inputs, 0.3)
        handle = doubled(parts(model)[part])
        assert altered(model)
        features = family_of(model).encode(model, inputs)
        reduced = hired.reduce(model, inputs, 0.3)
        shown = features_of(reduced)
        start, rows = 0, []
        for entry in reduced.selection:
            rows += [start + row for row in entry.rows]
            start += entry.tokens_full
        torch.testing.assert_close(shown, features[rows].reshape(shown.shape), **CLOSE)
        if not torch.equal(features, family_of(model).encode(models.shared(name), inputs)):
            assert not torch.allclose(shown, features_of(plain)) or kept(plain) != kept(reduced)
        handle.remove()
        assert not altered(model)


def features_of(reduced: Any) -> torch.Tensor:
    """(K, ...) what stands at the kept tokens' places."""
    found = reduced["mm_encoder_outputs"]["image"]
    main = found.pooler_output
    main = main.flatten(0, 1) if isinstance(main, torch.Tensor) else torch.cat(list(main))
    deep = getattr(found, "deepstack_features", None)
    return main if deep is None else torch.stack([main, *(torch.cat(list(layer)) for layer in deep)], 1)


@each_family
def test_methods_that_callers_replace_act_under_a_budget_too(name: str) -> None:
    model, inputs = ALL[name].model(), inputs_of(name)
    holder = model if name == "llama4" else model.base_model
    inner = holder.get_image_features

    def theirs(*args: Any, **kwargs: Any) -> Any:
        output = inner(*args, **kwargs)
        for field in ("pooler_output", "last_hidden_state"):
            value = getattr(output, field, None)
            if value is not None:
                setattr(output, field, value * 2 if isinstance(value, torch.Tensor) else [each * 2 for each in value])
        return output

    plain = hired.reduce(model, inputs, 0.3)
    holder.get_image_features = theirs
    reduced = hired.reduce(model, inputs, 0.3)
    assert kept(reduced) == kept(plain)
    torch.testing.assert_close(_first(features_of(reduced)), 2 * _first(features_of(plain)), **CLOSE)


def _first(features: torch.Tensor) -> torch.Tensor:
    return features[:, 0] if features.dim() == 3 else features


def test_an_encoder_budget_and_hooks_are_refused() -> None:
    model, inputs = ALL["llava_next"].model(), inputs_of("llava_next")
    doubled(model.model.vision_tower)
    with pytest.raises(hired.UnsupportedModelError, match="without hooks"):
        hired.reduce(model, inputs, 0.3, encoder_budget=2)


def test_hooks_that_only_belong_to_libraries_are_not_minded() -> None:
    model, inputs = ALL["llava_next"].model(), inputs_of("llava_next")
    with torch.no_grad():
        model(**inputs, output_hidden_states=True)  # transformers hooks the encoder to record its states
    assert not altered(model)
    model.model.vision_tower.register_forward_hook(unnoticed(lambda *_: None))
    assert not altered(model)


@each_family
@pytest.mark.filterwarnings("ignore")
def test_peft_with_an_encoder_of_its_own(name: str) -> None:
    """`modules_to_save` wraps encoder and projector: what runs is the copy in the wrapper."""
    inputs = inputs_of(name)
    expected = hired.reduce(models.shared(name), inputs, 0.3)
    wrapped = [part for part in parts(models.shared(name)) if "rotary" not in part]
    model = get_peft_model(ALL[name].model(), LoraConfig(target_modules=["q_proj"], modules_to_save=wrapped))
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "original_module" in key:
                value.add_(1.0)
    reduced = hired.reduce(model, inputs, 0.3)
    assert kept(reduced) == kept(expected)
    torch.testing.assert_close(logits(model, reduced), logits(models.shared(name), expected), **CLOSE)
    length = inputs["input_ids"].shape[1]
    with hired.enable(model, 0.3):
        torch.testing.assert_close(logits(model, inputs), logits(models.shared(name), expected), **CLOSE)
        new = model.generate(**inputs, **GREEDY)[:, length:]
    answer = models.shared(name).generate(**expected, **GREEDY)[:, expected["input_ids"].shape[1] :]
    assert torch.equal(new, answer)


@each_family
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("enabled", [False, True])
def test_gradient_checkpointing(name: str, enabled: bool) -> None:
    """Reading attention leaves no trace in the graph: gradients are those without checkpoints."""
    inputs = labelled(name)
    found = []
    for checkpoints in (False, True):
        model = ALL[name].model().train()
        if checkpoints:
            model.gradient_checkpointing_enable()
        if enabled:
            with hired.enable(model, 0.4):
                model(**inputs).loss.backward()
        else:
            model(**hired.reduce(model, inputs, 0.4)).loss.backward()
        found.append({key: value.grad for key, value in model.named_parameters() if value.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert any("vis" in key for key in found[0])
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key])


@each_family
def test_another_default_device(name: str) -> None:
    model, inputs = ALL[name].model(), inputs_of(name)
    expected = kept(hired.reduce(model, inputs, 0.3))
    with torch.device("meta"):
        hired.enable(model, 0.3).disable()
        assert kept(hired.reduce(model, inputs, 0.3)) == expected
        assert len(hired.reduce(model, inputs, 1.0).selection) == 3


@each_family
@pytest.mark.parametrize("size", [(1, 184), (184, 1), (64, 1)])
def test_strips(name: str, size: tuple[int, int]) -> None:
    """What processor and model take, the library takes; what a token shows has an area, or is nothing."""
    model = models.shared(name)
    try:
        inputs = pictures.inputs(name, [[size]])
        logits(model, inputs)
    except (RuntimeError, ValueError):
        pytest.skip("the processor or the untouched model does not take it")
    try:
        entry = hired.reduce(model, inputs, 0.5, images=[size]).selection[0]
    except hired.BudgetError as error:
        assert "leaves no token" in str(error)  # noqa: PT017
        return
    for token in entry.real_tokens:
        if token.box is not None:
            assert token.box[0] < token.box[2]
            assert token.box[1] < token.box[3]
