"""Reading attention rows: exact, invisible, undone, and safe under threads."""

import copy
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface

import hired
from hired.encoding import taps
from hired.encoding.taps import Tap, tapping
from hired.families import family_of
from hired.reduction import encode, plan
from tests.support import models, pictures

IMPLEMENTATIONS = ["sdpa", "eager"]
ROWS = [[(64, 64), (96, 20)], None, [(20, 70)]]


def fresh(name: str, implementation: str = "sdpa") -> Any:
    model = models.ALL[name].model()
    model.set_attn_implementation(implementation)
    return model


def settings(model: Any) -> list[str]:
    """The attention implementation of every configuration in the model, and of every module that holds one."""
    found = [str(model.config._attn_implementation)]
    found += [f"{n}:{m.config._attn_implementation}" for n, m in model.named_modules() if hasattr(m, "config")]
    return found


def features(model: Any, inputs: Any) -> list[torch.Tensor]:
    given = {key: inputs[key] for key in ("pixel_values", "image_sizes", "batch_num_images") if key in inputs}
    with torch.no_grad():
        return list(model.get_image_features(**given, return_dict=True).pooler_output)


def eager_attention(name: str, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the CLS in layer 0 and in the layer used, from the model's own `output_attentions`."""
    model = fresh(name, "eager")
    with torch.no_grad():
        attentions = model.model.vision_tower(pixels, output_attentions=True).attentions
    return attentions[0][:, :, 0], attentions[model.config.vision_feature_layer][:, :, 0]


@pytest.mark.parametrize("name", models.LLAVAS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_features_with_taps_equal_features_without(name: str, implementation: str, dtype: torch.dtype) -> None:
    model = fresh(name, implementation).to(dtype)
    inputs = pictures.inputs(name, ROWS).to(dtype)
    before = features(model, inputs)
    tapped = encode(plan(model, inputs, 0.3), everything=True).features
    assert len(tapped) == len(before) == 3
    for one, other in zip(tapped, before, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", models.CASES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_rows_equal_eager_attention(name: str, implementation: str) -> None:
    model = fresh(name, implementation)
    inputs = pictures.inputs(name, ROWS)
    planned = plan(model, inputs, 0.3)
    encoded = encode(planned)
    pixels = inputs["pixel_values"]
    for index, (layout, attention) in enumerate(zip(planned.layouts, encoded.attention, strict=True)):
        image = pixels[index][: layout.partitions] if pixels.dim() == 5 else pixels[index : index + 1]
        first, last = eager_attention(name, image)
        assert attention.first is not None
        assert attention.last is not None
        assert attention.last.shape == (layout.partitions, 2, layout.cells_per_partition)
        torch.testing.assert_close(attention.first, first[0, :, 1:], atol=1e-6, rtol=0)
        torch.testing.assert_close(attention.last, last[:, :, 1:], atol=1e-6, rtol=0)
        # The rows say something: far from uniform, and unlike in the two layers.
        assert float(last.std()) > 1e-3


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_masked_tower_keeps_its_mask(implementation: str) -> None:
    """A registered attention name without a registered mask would get no mask at all: wrong features on padding."""
    model = models.shared("llava").model.language_model
    model = type(model)(copy.deepcopy(model.config)).eval()
    model.set_attn_implementation(implementation)
    ids = torch.tensor([[0, 0, 7, 8, 9], [5, 6, 7, 8, 9]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    with torch.no_grad():
        before = model(ids, attention_mask=mask).last_hidden_state
        tap = Tap(model.layers[0].self_attn, 4)
        with tapping(model, [tap]):
            inside = model(ids, attention_mask=mask).last_hidden_state
    assert torch.equal(inside[mask.bool()], before[mask.bool()])
    row = tap.rows[0]
    assert row.shape == (2, 2, 5)
    assert float(row[0, :, :2].max()) < 1e-6, "attention on padding"
    torch.testing.assert_close(row.sum(-1), torch.ones(2, 2))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(ids, attention_mask=mask, output_attentions=True).attentions[0][:, :, 4]
    torch.testing.assert_close(row, expected, atol=1e-6, rtol=0)


def test_items_are_read_in_the_order_asked() -> None:
    model = fresh("llava")
    pixels = torch.rand(3, 3, models.SIDE, models.SIDE)
    tower = model.model.vision_tower
    layer = family_of(model).parts(model).attention(0)
    every, some = Tap(layer, 0), Tap(layer, 0, torch.tensor([2, 0]))
    for tap in (every, some):
        with torch.no_grad(), tapping(tower, [tap]):
            tower(pixels)
    assert torch.equal(some.rows[0], every.rows[0][[2, 0]])


def test_at_the_full_budget_nothing_is_switched() -> None:
    model = fresh("llava")
    hired.reduce(model, pictures.inputs("llava", [[(40, 40)]]), 1.0)
    assert "hired" not in " ".join(settings(model))


@pytest.mark.parametrize("name", models.LLAVAS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_settings_are_as_before_afterwards(name: str, implementation: str) -> None:
    model = fresh(name, implementation)
    inputs = pictures.inputs(name, ROWS)
    features(model, inputs)  # transformers leaves its own marks on first use
    before, classes = settings(model), {n: type(m) for n, m in model.named_modules()}
    state = {n: dict(vars(m)) for n, m in model.named_modules()}
    hooks = {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()}
    hired.reduce(model, inputs, 0.3)
    assert settings(model) == before
    assert {n: type(m) for n, m in model.named_modules()} == classes
    assert all(vars(m).keys() == state[n].keys() for n, m in model.named_modules()), "an attribute was left behind"
    assert {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()} == hooks
    assert not taps._users


@pytest.mark.parametrize("name", models.LLAVAS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_settings_are_as_before_after_an_exception(name: str, implementation: str) -> None:
    model = fresh(name, implementation)
    inputs = pictures.inputs(name, ROWS)
    before = settings(model)

    def fail(*_: Any) -> None:
        assert settings(model) != before, "the tap was not in force"
        raise ZeroDivisionError

    encoder = family_of(model).parts(model)
    hook = encoder.attention(encoder.last).register_forward_hook(fail)
    with pytest.raises(ZeroDivisionError):
        hired.reduce(model, inputs, 0.3)
    assert settings(model) == before
    assert not taps._users
    assert taps._active.get() is None
    hook.remove()
    expected = hired.reduce(models.shared(name), inputs, 0.3)
    assert torch.equal(hired.reduce(model, inputs, 0.3)["input_ids"], expected["input_ids"])


def test_nested_and_overlapping_use_is_counted() -> None:
    model = fresh("llava")
    tower = model.model.vision_tower
    layer = family_of(model).parts(model).attention(0)
    outer, inner = Tap(layer, 0), Tap(layer, 0)
    pixels = torch.rand(2, 3, models.SIDE, models.SIDE)
    with torch.no_grad(), tapping(tower, [outer]):
        switched = tower.config._attn_implementation
        assert switched != "sdpa"
        with tapping(tower, [inner]):
            assert tower.config._attn_implementation == switched
            tower(pixels)
        assert tower.config._attn_implementation == switched, "the inner block switched back too early"
        assert not outer.rows
        tower(pixels)
    assert len(inner.rows) == len(outer.rows) == 1
    assert torch.equal(inner.rows[0], outer.rows[0])
    assert tower.config._attn_implementation == "sdpa"
    assert not taps._users


def test_another_thread_that_only_runs_the_model_fills_no_tap() -> None:
    model = fresh("llava")
    tower = model.model.vision_tower
    pixels = torch.rand(2, 3, models.SIDE, models.SIDE)
    tap = Tap(family_of(model).parts(model).first, 0)
    with torch.no_grad():
        expected = tower(pixels).last_hidden_state
    found: list[torch.Tensor] = []

    def run() -> None:
        with torch.no_grad():
            found.append(tower(pixels).last_hidden_state)

    with tapping(tower, [tap]):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert not tap.rows
    assert torch.equal(found[0], expected)


@pytest.mark.parametrize("name", models.LLAVAS)
def test_two_threads_reduce_with_one_model(name: str) -> None:
    model = fresh(name)
    before = settings(model)
    asked = (((64, 64), 0.3), ((96, 20), 5))
    jobs = [(pictures.inputs(name, [[size]], seed=seed), budget) for seed in range(4) for size, budget in asked]
    serial = [hired.reduce(model, inputs, budget) for inputs, budget in jobs]
    inside, most = 0, 0
    lock = threading.Lock()
    barrier = threading.Barrier(2)
    tower = model.model.vision_tower

    def enter(*_: Any) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        barrier.wait(timeout=30)  # both threads stand in the tower before either goes on

    def leave(*_: Any) -> None:
        nonlocal inside
        with lock:
            inside -= 1

    hooks = [tower.register_forward_pre_hook(enter), tower.register_forward_hook(leave, always_call=True)]
    with ThreadPoolExecutor(2) as pool:
        parallel = list(pool.map(lambda job: hired.reduce(model, *job), jobs))
    for hook in hooks:
        hook.remove()
    assert most == 2
    assert settings(model) == before
    assert not taps._users
    for one, other in zip(parallel, serial, strict=True):
        assert [entry.rows for entry in one.selection] == [entry.rows for entry in other.selection]
        for a, b in zip(
            one["mm_encoder_outputs"]["image"].pooler_output,
            other["mm_encoder_outputs"]["image"].pooler_output,
            strict=True,
        ):
            assert torch.equal(a, b)


def test_registered_names_have_their_mask_and_keep_flash_in_the_name() -> None:
    for name in ("sdpa", "eager"):
        tapped = taps._register(name)
        assert tapped in AttentionInterface()
        assert (tapped in AttentionMaskInterface()) == (name in AttentionMaskInterface())
        if name in AttentionMaskInterface():
            assert AttentionMaskInterface()[tapped] is AttentionMaskInterface()[name]
        assert taps._register(name) == tapped
    assert "flash" in taps._register("flash_attention_2")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_import_hired_is_light() -> None:
    heavy = python(
        "import sys, hired; hired.HiredError, hired.__version__; dir(hired);"
        "print([m for m in ('torch', 'transformers', 'PIL', 'numpy', 'typer', 'rich') if m in sys.modules])"
    )
    assert heavy == "[]"


def test_import_changes_nothing_global() -> None:
    code = """
import torch, transformers
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.models.llava import modeling_llava
from transformers.models.llava_next import modeling_llava_next
from transformers.models.clip import modeling_clip

def state():
    classes = [v for m in (modeling_llava, modeling_llava_next, modeling_clip, transformers.modeling_utils,
                           transformers.generation.utils) for v in vars(m).values()]
    return (sorted(AttentionInterface()), sorted(AttentionMaskInterface()), len(classes),
            [(id(c), sorted((k, id(v)) for k, v in vars(c).items()) if isinstance(c, type) else 0) for c in classes],
            torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())

before = state()
import hired
import hired.reduction, hired.encoding.taps, hired.families, hired.methods, hired.reference, hired.enabling
hired.reduce, hired.enable
after = state()
print([a == b for a, b in zip(before, after)])
"""
    assert python(code) == str([True] * 7)
