"""Bad input: one clear error of ours before the model runs, and the inputs as they were."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

import hired
from hired import BudgetError, HiredError, InputsError, UnsupportedModelError
from hired.families import family_of
from tests.support import models, pictures
from tests.support.reducing import budgeted

NAMES = list(models.LLAVAS)
each_family = pytest.mark.parametrize("name", NAMES)


def expect(model: Any, inputs: Any, error: type[HiredError], match: str, **settings: Any) -> None:
    """`hired.reduce` raises `error`, no module of the model runs, the inputs stay as they were."""
    before = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()} if inputs else None
    calls: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        for name, module in model.named_modules()
    ]
    try:
        with pytest.raises(error, match=match) as caught:
            hired.reduce(model, inputs, **{"budget": 0.2, **settings})
    finally:
        for hook in hooks:
            hook.remove()
    assert isinstance(caught.value, HiredError)
    assert "\n" not in str(caught.value)
    assert not calls, "the model ran"
    if before is not None:
        assert inputs.keys() == before.keys()
        for key, value in inputs.items():
            same = torch.equal(value, before[key]) if isinstance(value, torch.Tensor) else value is before[key]
            assert same, key


# --- Settings ----------------------------------------------------------------------------------------------------


@each_family
@pytest.mark.parametrize(
    "budget",
    [0, 0.0, -0.1, -5, 1.5, 2.5, math.nan, math.inf, True, False, "0.2", None, [0.2], np.bool_(True)],
    ids=repr,
)
def test_budget(name: str, budget: Any) -> None:
    for rows in ([[(64, 64)]], [None]):
        expect(models.shared(name), pictures.inputs(name, rows), BudgetError, "budget", budget=budget)


def test_a_share_too_small_to_keep_one_token() -> None:
    for name, share, total in (("llava", 0.06, 16), ("llava_next", 0.012, 80)):
        inputs = pictures.inputs(name, [[(64, 64)]])
        expect(models.shared(name), inputs, BudgetError, f"{share} of {total} .* leaves no token", budget=share)
    # One small picture among large ones is enough.
    inputs = pictures.inputs("llava_next", [[(64, 64)], [(20, 20)]])
    expect(models.shared("llava_next"), inputs, BudgetError, "0.03 of 32 .* leaves no token", budget=0.03)


@each_family
@pytest.mark.parametrize("alpha", [-0.01, 1.01, math.nan, True, "half", None], ids=repr)
def test_alpha(name: str, alpha: Any) -> None:
    for method in ("hired", "uniform"):
        inputs = pictures.inputs(name, [[(64, 64)]])
        expect(models.shared(name), inputs, BudgetError, "alpha", alpha=alpha, method=method)


@pytest.mark.parametrize(
    ("setting", "value", "match"),
    [
        ("method", "fastv", "unknown method 'fastv': use one of hired, glean, published"),
        ("variant", "papre", "unknown variant 'papre': use one of paper, published"),
        ("newlines", "yes", "newlines='yes': use one of 'drop', 'keep'"),
        ("positions", "2d", "positions='2d': use one of 'consecutive', 'original'"),
    ],
)
def test_choices(setting: str, value: str, match: str) -> None:
    inputs = pictures.inputs("llava_next", [[(64, 64)]])
    expect(models.shared("llava_next"), inputs, BudgetError, match, **{setting: value})


# --- Models ------------------------------------------------------------------------------------------------------


def test_a_model_of_an_unknown_family_is_told_the_known_ones() -> None:
    inputs = pictures.inputs("llava", [[(64, 64)]])
    match = "LlamaForCausalLM .*'llama'.* not supported.*`hired models`"
    expect(LlamaForCausalLM(models.text()), inputs, UnsupportedModelError, match)
    expect(torch.nn.Linear(1, 1), inputs, UnsupportedModelError, "Linear .* not supported")
    with pytest.raises(UnsupportedModelError, match="NoneType"):
        hired.reduce(None, inputs, 0.2)


def llava(**changes: Any) -> Any:
    config = LlavaConfig(
        **{
            "vision_config": models.vision(),
            "text_config": models.text(),
            "image_token_index": models.IMAGE_ID,
            "image_seq_length": 16,
            **changes,
        }
    )
    return LlavaForConditionalGeneration(config).eval()


def test_encoders_hired_cannot_read() -> None:
    inputs = pictures.inputs("llava", [[(64, 64)]])
    siglip = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8
    )
    expect(llava(vision_config=siglip), inputs, UnsupportedModelError, "'default' drops the first patch")
    expect(llava(vision_feature_select_strategy="full"), inputs, UnsupportedModelError, "'full'.*'default'")
    for layer in (7, -9, 0):
        expect(llava(vision_feature_layer=layer), inputs, UnsupportedModelError, f"vision_feature_layer={layer}")


def test_methods_that_read_no_attention_need_no_cls() -> None:
    siglip = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8
    )
    model = llava(vision_config=siglip, vision_feature_select_strategy="full")
    inputs = pictures.inputs("llava", [[(64, 64)]])
    assert hired.reduce(model, inputs, 0.5, method="uniform").selection[0].tokens_kept == 8


@pytest.mark.parametrize("layer", [1, 2, -1, -2, -4, [1, 3], [-2, 1]])
def test_any_layer_may_be_the_one_used(layer: Any) -> None:
    config = CLIPVisionConfig(**{**models.vision().to_dict(), "num_hidden_layers": 4})
    model = llava(vision_config=config, vision_feature_layer=layer)
    used = max(at if at >= 0 else 5 + at for at in ([layer] if isinstance(layer, int) else layer))
    assert family_of(model).parts(model).last == used - 1
    assert hired.reduce(model, pictures.inputs("llava", [[(64, 64)]]), 0.5).selection[0].tokens_kept == 8


# --- Inputs ------------------------------------------------------------------------------------------------------


Change = Callable[[dict[str, Any]], Any]


def drop(*keys: str) -> Change:
    return lambda inputs: [inputs.pop(key) for key in keys]


def put(**entries: Any) -> Change:
    return lambda inputs: inputs.update(entries)


def text_only(inputs: dict[str, Any]) -> None:
    inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == models.IMAGE_ID, 9)


def truncate(inputs: dict[str, Any]) -> None:
    for key in ("input_ids", "attention_mask"):
        inputs[key] = inputs[key][:, :10]


def one_more_placeholder(inputs: dict[str, Any]) -> None:
    extra = torch.full((1, 1), models.IMAGE_ID)
    inputs["input_ids"] = torch.cat((inputs["input_ids"], extra), 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])


def twice_the_prompt(inputs: dict[str, Any]) -> None:
    for key in ("input_ids", "attention_mask"):
        inputs[key] = inputs[key].repeat(2, 1)


def twice_the_pixels(inputs: dict[str, Any]) -> None:
    for key in ("pixel_values", "image_sizes", "batch_num_images"):
        if key in inputs:
            inputs[key] = torch.cat((inputs[key], inputs[key]))


BAD: dict[str, tuple[Change, str]] = {
    "pixels without placeholders": (text_only, "no image placeholder"),
    "placeholders without pixels": (drop("pixel_values"), "placeholders but there are no pixel_values"),
    "placeholders and pixels None": (put(pixel_values=None), "placeholders but there are no pixel_values"),
    "truncated prompt": (truncate, "row 0 holds .* no whole number of images.*truncated"),
    "one placeholder too many": (one_more_placeholder, "row 0 holds"),
    "more prompts than pictures": (twice_the_prompt, "row 1 holds"),
    "more pictures than prompts": (twice_the_pixels, "1 of 2 images have no placeholders"),
    "videos beside images": (put(pixel_values_videos=torch.zeros(1, 2, 3, 32, 32)), "videos are not supported yet"),
    "video grid": (put(video_grid_thw=torch.ones(1, 3)), "videos are not supported yet"),
    "already reduced": (put(mm_encoder_outputs={"image": None}), "already encoded"),
    "no ids": (drop("input_ids"), "input_ids must be"),
    "ids as a list": (put(input_ids=[[1, 2, 3]]), 'return_tensors="pt"'),
    "ids of one dimension": (put(input_ids=torch.tensor([1, 2, 3])), "batch, length"),
    "mask of another shape": (put(attention_mask=torch.ones(1, 3)), "attention_mask must"),
    "mask as a list": (put(attention_mask=[[1]]), "attention_mask must"),
    "pixels of another size": (put(pixel_values=torch.zeros(1, 5, 3, 64, 64)), "input of 3. x 3. pixels.*processor"),
    "pixels as a list": (put(pixel_values=[[0.0]]), "pixel_values .*processor"),
    "pixels as an array": (put(pixel_values=np.zeros((1, 5, 3, 32, 32), dtype=np.float32)), "pixel_values .*processor"),
}


@each_family
@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("budget", [0.2, 0.9])
def test_inputs_that_do_not_fit(name: str, case: str, budget: float) -> None:
    change, match = BAD[case]
    inputs = dict(pictures.inputs(name, [[(64, 64)]]))
    change(inputs)
    expect(models.shared(name), inputs, InputsError, match, budget=budget)


@pytest.mark.parametrize(
    ("case", "change", "match"),
    [
        ("missing", drop("image_sizes"), "image_sizes is missing"),
        ("too many", put(image_sizes=torch.tensor([[64, 64], [64, 64]])), "1 images in pixel_values but 2"),
        ("no area", put(image_sizes=torch.tensor([[0, 64]])), "without area"),
        ("another picture's", put(image_sizes=torch.tensor([[96, 64]])), "row 0 holds|too few partitions"),
        ("of three numbers", put(image_sizes=torch.tensor([[64, 64, 3]])), "image_sizes"),
        ("text", put(image_sizes="64x64"), "image_sizes"),
        ("pixels of one picture only", put(pixel_values=torch.zeros(1, 3, 32, 32)), "too few partitions"),
        (
            "too few partitions",
            put(pixel_values=torch.zeros(1, 2, 3, 32, 32)),
            "too few partitions.*64 x 64.*cuts into 5",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_llava_next_inputs_that_do_not_fit(case: str, change: Change, match: str) -> None:
    inputs = dict(pictures.inputs("llava_next", [[(64, 64)]]))
    change(inputs)
    expect(models.shared("llava_next"), inputs, InputsError, match)


@each_family
@pytest.mark.parametrize("inputs", [None, "text", 3, [1, 2]], ids=repr)
def test_inputs_that_are_no_mapping(name: str, inputs: Any) -> None:
    with pytest.raises(InputsError, match="mapping the processor returned"):
        hired.reduce(models.shared(name), inputs, 0.2)


@each_family
def test_reducing_twice_is_an_error(name: str) -> None:
    reduced = hired.reduce(models.shared(name), pictures.inputs(name, [[(64, 64)]]), 0.5)
    with pytest.raises(InputsError, match="already encoded"):
        hired.reduce(models.shared(name), reduced, 0.5)


@pytest.mark.parametrize(
    ("name", "images", "match"),
    [
        ("llava", [(64, 64), (3, 3)], "images= has 2 pictures, the inputs 1"),
        ("llava", [], "images= has 0 pictures"),
        ("llava", ["a.png"], "pictures or \\(width, height\\) pairs, got str"),
        ("llava", [3], "got int"),
        ("llava", [(0, 5)], "0 x 5"),
        ("llava_next", [(32, 64)], "images= has sizes .*\\(32, 64\\).* made from .*\\(64, 64\\)"),
    ],
)
def test_images_that_do_not_fit(name: str, images: Any, match: str) -> None:
    expect(models.shared(name), pictures.inputs(name, [[(64, 64)]]), InputsError, match, images=images)


@each_family
@pytest.mark.parametrize("key", ["input_ids", "pixel_values"])
def test_inputs_on_another_device(name: str, key: str) -> None:
    inputs = dict(pictures.inputs(name, [[(64, 64)]]))
    inputs[key] = inputs[key].to("meta")
    with pytest.raises(InputsError, match=f"{key} is on meta, the model on cpu.*to.model.device"):
        hired.reduce(models.shared(name), inputs, 0.2)


def test_a_batch_names_the_row() -> None:
    inputs = dict(pictures.inputs("llava_next", [[(64, 64)], [(90, 31)]]))
    inputs["input_ids"][1, -2] = models.IMAGE_ID
    expect(models.shared("llava_next"), inputs, InputsError, "row 1 holds")


def test_images_of_other_rows_are_not_taken() -> None:
    # The sum is right, the rows are not: the two prompts were swapped.
    inputs = dict(pictures.inputs("llava_next", [[(64, 64)], [(20, 20)]]))
    inputs["input_ids"] = inputs["input_ids"].flip(0)
    expect(models.shared("llava_next"), inputs, InputsError, "row 0 holds 36")


def test_error_classes() -> None:
    for error, builtin in (
        (hired.BudgetError, ValueError),
        (hired.InputsError, ValueError),
        (hired.ImageError, ValueError),
        (hired.UnsupportedModelError, TypeError),
        (hired.ModelLoadError, OSError),
        (hired.MissingDependencyError, ImportError),
    ):
        assert issubclass(error, HiredError)
        assert issubclass(error, builtin)


def test_names_of_the_package() -> None:
    for name in hired.__all__:
        assert getattr(hired, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hired.nothing  # noqa: B018


# --- Odd, but right ----------------------------------------------------------------------------------------------


@each_family
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (8, 400), (400, 8), (2, 3), (3000, 60)], ids=str)
@pytest.mark.parametrize("budget", [1.0, 0.2, 5])
@pytest.mark.parametrize("newlines", ["drop", "keep"])
def test_odd_pictures_work(name: str, size: tuple[int, int], budget: float, newlines: Any) -> None:
    model = models.shared(name)
    inputs = pictures.inputs(name, [[size], [(64, 64), size]])
    reduced = hired.reduce(model, inputs, budget, newlines=newlines)
    assert len(reduced.selection) == 3
    if budget == 1 and not models.ALL[name].by_prompt:
        assert reduced.selection[0].rows == reduced.selection[2].rows
    for entry in reduced.selection:
        allowed = int(budget * budgeted(name, entry) + 1e-9) if budget <= 1 else budget
        if budget != 1 and allowed < entry.tokens_full:
            assert entry.tokens_kept == (min(allowed, entry.tokens_real) if newlines == "drop" else allowed)
        for token in entry.tokens:
            if token.box is not None:
                assert token.box[0] < token.box[2]
                assert token.box[1] < token.box[3]
                assert all(math.isfinite(edge) for edge in token.box)
    new = model.generate(**reduced, max_new_tokens=2, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert new.shape == (2, reduced["input_ids"].shape[1] + 2)
