"""The encoder computes nothing whose result nobody uses, and what it computes is what the whole encoder gives."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import hired
from hired.core.budget import EncoderBudget
from hired.encoding.distinct import distinct
from hired.encoding.packed import Packed
from hired.families import family_of
from hired.reduction import assemble, encode, plan, project, select
from tests.support import models, pictures
from tests.support.reducing import each_family, kept_rows
from tests.support.watching import unnoticed

ROWS = [[(64, 64), (96, 20)], None, [(20, 70)]]
LAYERS = 6


def deep(name: str, **settings: Any) -> Any:
    """A model whose encoder has more layers than the usual tiny one."""
    usual = models.shared(name)
    config = copy.deepcopy(usual.config)
    config.vision_config.num_hidden_layers = LAYERS
    for key, value in settings.items():
        setattr(config, key, value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return type(usual)(config).eval()


@contextmanager
def seen(modules: list[Any]) -> Iterator[list[list[tuple[int, ...]]]]:
    """Shapes of what each module is called with."""
    shapes: list[list[tuple[int, ...]]] = [[] for _ in modules]
    handles = [
        module.register_forward_pre_hook(unnoticed(lambda _, args, found=found: found.append(tuple(args[0].shape))))
        for module, found in zip(modules, shapes, strict=True)
    ]
    try:
        yield shapes
    finally:
        for handle in handles:
            handle.remove()


def features(reduced: Any) -> list[Tensor]:
    return list(reduced["mm_encoder_outputs"]["image"].pooler_output)


@each_family
@pytest.mark.parametrize("layer", [-1, -2, -3, [1, 4]])
def test_states_are_bitwise_the_encoders_and_later_layers_do_not_run(name: str, layer: Any) -> None:
    model = deep(name, vision_feature_layer=layer)
    inputs = pictures.inputs(name, ROWS)
    planned = plan(model, inputs, 0.5)
    encoder = family_of(model).parts(model)
    with seen([layer.mlp for layer in encoder.layers]) as shapes:
        patches = encode(planned).patches
    assert patches is not None
    assert [len(found) for found in shapes] == [1] * (encoder.last + 1) + [0] * (LAYERS - 1 - encoder.last)
    with torch.no_grad():
        pixels = family_of(model).pixels(inputs, planned.layouts)
        states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    used = [layer] if isinstance(layer, int) else layer
    expected = torch.cat([states[index][:, 1:] for index in used], dim=-1)
    n, tokens = expected.shape[:2]
    found = patches.of(torch.arange(n)[:, None].expand(n, tokens), torch.arange(tokens)[None].expand(n, tokens))
    assert torch.equal(found, expected)


@each_family
@pytest.mark.parametrize("newlines", ["drop", "keep"])
@pytest.mark.parametrize("budget", [0.5, 7, 20])
def test_same_choice_and_features_as_with_everything_computed(name: str, newlines: Any, budget: float) -> None:
    model, inputs = deep(name), pictures.inputs(name, ROWS)
    planned = plan(model, inputs, budget, newlines=newlines)
    reduced = hired.reduce(model, inputs, budget, newlines=newlines)
    encoded = encode(planned, everything=True)
    kept = select(planned, encoded)
    whole = assemble(planned, encoded, kept, project(planned, encoded, kept))
    assert kept_rows(reduced) == kept_rows(whole)
    if not planned.drops:
        assert reduced["pixel_values"] is whole["pixel_values"] is inputs["pixel_values"]
        return
    for one, other in zip(features(reduced), features(whole), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@each_family
def test_only_kept_tokens_are_projected(name: str) -> None:
    model, inputs = deep(name), pictures.inputs(name, ROWS)
    with seen([model.model.multi_modal_projector]) as (shapes,):
        reduced = hired.reduce(model, inputs, 7)
    assert [shape[0] for shape in shapes] == [sum(entry.tokens_kept for entry in reduced.selection)] == [21]


def test_a_partition_without_a_share_stops_after_the_initial_layer() -> None:
    model, inputs = deep("llava_next"), pictures.inputs("llava_next", [[(64, 64)]])
    encoder = family_of(model).parts(model)
    with seen([layer.mlp for layer in encoder.layers]) as shapes:
        reduced = hired.reduce(model, inputs, 4)
    per_partition = reduced.selection[0].per_partition
    assert 0 in per_partition
    assert shapes[0][0][0] == len(per_partition)
    alive = sum(1 for tokens in per_partition if tokens)
    assert {found[0][0] for found in shapes[1 : encoder.last + 1]} == {alive}
    with seen([layer.mlp for layer in encoder.layers]) as shapes:
        alone = hired.reduce(model, inputs, 4, alpha=0.0)
    assert alone.selection[0].per_partition[0] == 0
    assert shapes[1][0][0] == sum(1 for tokens in alone.selection[0].per_partition if tokens)


def test_identical_partitions_are_encoded_once() -> None:
    model, inputs = deep("llava_next"), pictures.inputs("llava_next", [[(64, 64)], [(64, 64)]])
    pixels = inputs["pixel_values"]
    pixels[0, 2:4] = 0.25  # two blank sub-images, and the same two in the other picture
    pixels[1, 2:4] = 0.25
    encoder = family_of(model).parts(model)
    with seen([layer.mlp for layer in encoder.layers]) as shapes:
        reduced = hired.reduce(model, inputs, 0.5)
    assert pixels.shape[:2] == (2, 5)
    assert shapes[0][0][0] == 10 - 3
    planned = plan(model, inputs, 0.5)
    encoded = encode(planned, everything=True)
    kept = select(planned, encoded)
    assert kept_rows(reduced) == [rows.tolist() for rows in kept if rows is not None]
    for one, other in zip(features(reduced), project(planned, encoded, kept), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_distinct() -> None:
    pixels = torch.rand(6, 3, 4, 4)
    pixels[3] = pixels[1]
    pixels[5] = pixels[1]
    pixels[4] = pixels[2].flip(0)  # the same sum, another picture
    assert distinct(pixels) == ([0, 1, 2, 4], [0, 1, 2, 1, 3, 1])
    assert distinct(torch.full((2, 3, 4, 4), torch.nan)) == ([0, 1], [0, 1])


class Waits(TorchFunctionMode):
    """Counts calls that would make the host wait for the device, if what is not known to be on the host were there.

    On the host is what `on_host` returned and what was made of nothing else.
    """

    NAMES = ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero", "cpu", "numpy", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        host = all(getattr(tensor, "host", False) for tensor in given)
        name = getattr(func, "__name__", "")
        if name in self.NAMES and not host:
            self.found.append(name)
        return self.known(func(*args, **(kwargs or {})), host)

    def known(self, values: Any, host: bool = True) -> Any:
        """Marks tensors as those of the host, or not."""
        for leaf in tree_leaves(values):
            if isinstance(leaf, Tensor):
                leaf.host = host  # type: ignore[attr-defined]
        return values

    def on_host(self, tensors: Any) -> Any:
        """In place of `on_host`."""
        self.found.append("on_host")
        return self.known([tensor.clone() for tensor in tensors])


@each_family
@pytest.mark.parametrize("encoder_budget", [None, 1.5])
def test_one_wait_for_the_device_between_encoder_and_llm(
    name: str, encoder_budget: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = deep(name), pictures.inputs(name, [[(64, 64), (96, 20)], [(20, 70)]])
    planned = plan(model, inputs, 0.3, encoder_budget=encoder_budget)
    starts: list[int] = []
    encoder = family_of(model).parts(model)
    with Waits() as waits:
        monkeypatch.setattr("hired.methods.base.on_host", waits.on_host)
        waits.known([(layout.rows, layout.columns) for layout in planned.layouts])
        handle = encoder.layers[0].register_forward_pre_hook(unnoticed(lambda *_: starts.append(len(waits.found))))
        encoded = encode(planned)
        kept = select(planned, encoded)
        assemble(planned, encoded, kept, project(planned, encoded, kept))
        handle.remove()
    # What the budget is divided by, behind the initial layer. Where a picture is one partition nothing is divided.
    assert waits.found[starts[0] :] == ["on_host"] * (name == "llava_next")


# --- the encoder's own budget


def by_hand(model: Any, pixels: Tensor, keep: int, layer: int) -> tuple[list[int], Tensor]:
    """(patches that go on, their states in the end) of one partition, computed layer by layer."""
    tower = model.model.vision_tower
    tower.set_attn_implementation("eager")
    encoder = family_of(model).parts(model)
    hidden = tower.pre_layrnorm(tower.embeddings(pixels[None]))
    weights: list[Tensor] = []
    handles = [
        m.self_attn.register_forward_hook(unnoticed(lambda _, __, out: weights.append(out[1]))) for m in encoder.layers
    ]
    chosen = list(range(hidden.shape[1] - 1))
    for index in range(encoder.last + 1):
        if index == layer:
            encoder.layers[index](hidden, None)  # for its attention
            score = weights[-1][0, :, 0, 1:].sum(0)
            chosen = sorted(score.argsort(descending=True, stable=True)[:keep].tolist())
            hidden = hidden[:, [0, *(cell + 1 for cell in chosen)]]
        hidden = encoder.layers[index](hidden, None)
    for handle in handles:
        handle.remove()
    return chosen, hidden[0, 1:]


@torch.no_grad()
@pytest.mark.parametrize("ratio", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("depth", [0.0, 0.3, 0.4, 1.0])
def test_encoder_budget_by_hand(ratio: float, depth: float) -> None:
    model, inputs = deep("llava_next"), pictures.inputs("llava_next", [[(64, 64)], [(20, 70)]])
    budget = EncoderBudget(ratio, depth)
    encoder = family_of(model).parts(model)
    layer = budget.layer(encoder.first, encoder.last)
    assert 1 <= layer <= encoder.last
    with seen([layer.mlp for layer in encoder.layers]) as shapes:
        reduced = hired.reduce(model, inputs, 0.3, encoder_budget=budget)
    assert shapes[layer][0][0] == 1
    planned = plan(model, inputs, 0.3)
    pixels = family_of(model).pixels(inputs, planned.layouts)
    start = 0
    for entry, layout, feature in zip(reduced.selection, planned.layouts, features(reduced), strict=True):
        for partition, share in enumerate(entry.per_partition):
            if share and layout.capacity[partition] == 16:
                keep = min(math.ceil(share * ratio), 16)
                chosen, states = by_hand(model, pixels[start + partition], keep, layer)
                tokens = [(at, t.cell) for at, t in enumerate(entry.tokens) if t.partition == partition and t.cell]
                cells = [cell[0] * 4 + cell[1] for _, cell in tokens]
                assert set(cells) <= set(chosen)
                projected = model.model.multi_modal_projector(states)[[chosen.index(cell) for cell in cells]]
                torch.testing.assert_close(feature[[at for at, _ in tokens]], projected, atol=1e-4, rtol=1e-4)
        start += layout.partitions


@each_family
@pytest.mark.parametrize("budget", [0.1, 0.4, 7, 20])
def test_encoder_budget_meets_the_budget_and_divides_it_alike(name: str, budget: float) -> None:
    model, inputs = deep(name), pictures.inputs(name, ROWS)
    plain = hired.reduce(model, inputs, budget).selection
    narrowed = hired.reduce(model, inputs, budget, encoder_budget=1.0).selection
    assert [entry.per_partition for entry in narrowed] == [entry.per_partition for entry in plain]
    assert [entry.tokens_kept for entry in narrowed] == [entry.tokens_kept for entry in plain]


@each_family
def test_an_encoder_budget_that_covers_everything_changes_nothing(name: str) -> None:
    model, inputs = deep(name), pictures.inputs(name, ROWS)
    plain, wide = hired.reduce(model, inputs, 0.3), hired.reduce(model, inputs, 0.3, encoder_budget=100)
    assert kept_rows(plain) == kept_rows(wide)
    for one, other in zip(features(plain), features(wide), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("value", [0.5, 0, -1, float("nan"), float("inf"), "2", True, EncoderBudget(2, 1.5)])
def test_bad_encoder_budgets(value: Any) -> None:
    with pytest.raises(hired.BudgetError):
        hired.reduce(models.shared("llava"), pictures.inputs("llava", [[(64, 64)]]), 0.3, encoder_budget=value)


@pytest.mark.parametrize("settings", [{"method": "uniform"}, {"variant": "published"}, {"newlines": "keep"}])
def test_settings_an_encoder_budget_cannot_go_with(settings: Any) -> None:
    model, inputs = models.shared("llava_next"), pictures.inputs("llava_next", [[(64, 64)]])
    with pytest.raises(hired.BudgetError, match="encoder_budget"):
        hired.reduce(model, inputs, 0.3, encoder_budget=1.5, **settings)
    with pytest.raises(hired.BudgetError, match="encoder_budget"):
        hired.enable(model, 0.3, encoder_budget=1.5, **settings)


@pytest.mark.parametrize("lengths", [[2, 4, 1], [5], [3, 3, 3], [17, 2, 16, 1, 9, 8, 4], [1, 1]])
def test_packing(lengths: list[int]) -> None:
    packed = Packed.of(lengths, torch.device("cpu"))
    total = sum(lengths)
    apart = packed.whole.take(torch.arange(float(total)).view(1, 1, total, 1))[:, 0, :, 0]
    assert apart.flatten()[packed.slot].tolist() == list(range(total))
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, total, 8) for _ in range(3))
    mixed = packed.attend(q, k, v, None)
    start = 0
    for length in lengths:
        parts = (part[:, :, start : start + length] for part in (q, k, v))
        alone = torch.nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2)
        torch.testing.assert_close(mixed[:, start : start + length], alone)
        start += length


def test_packing_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def varlen(q: Tensor, k: Tensor, v: Tensor, edges: Tensor, same: Tensor, *most: int, scale: float | None) -> Tensor:
        assert edges is same
        assert edges.dtype == torch.int32
        assert most == (17, 17)
        parts = []
        for start, end in pairwise(edges.tolist()):
            heads = (part[start:end].transpose(0, 1)[None] for part in (q, k, v))
            parts.append(torch.nn.functional.scaled_dot_product_attention(*heads, scale=scale)[0].transpose(0, 1))
        return torch.cat(parts)

    packed = Packed.of([2, 17, 1, 9], torch.device("cpu"))
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 29, 8) for _ in range(3))
    padded = packed.attend(q, k, v, 0.3)
    monkeypatch.setattr("hired.encoding.packed.varlen_for", lambda query: varlen)
    torch.testing.assert_close(packed.attend(q, k, v, 0.3), padded)


def test_packing_pads_little() -> None:
    lengths = [433, 109, 80, 120, 101]
    groups = Packed.of(lengths, torch.device("cpu")).groups
    assert sum(lengths) <= sum(group.place.numel() for group in groups) < 1.1 * sum(lengths)
    assert [group.mask is None for group in Packed.of([7, 7], torch.device("cpu")).groups] == [True]
