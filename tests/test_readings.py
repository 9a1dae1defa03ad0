"""What methods are given to read, and what becomes of merged tokens: against the model's own outputs, by hand."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import hired
from hired.core.choose import in_order, patches
from hired.core.image import READINGS, Image
from hired.core.layout import STRUCTURE
from hired.families import family_of
from hired.methods import METHODS, resolve
from hired.reduction import assemble, encode, plan, project, select
from tests.support import models, pictures
from tests.support.enabling import fresh
from tests.support.reducing import MIXED, alone, each_family

SINGLE = [[(64, 64)], None, [(20, 70)]]
MERGING = [name for name, method in METHODS.items() if hasattr(method, "merge")]


@dataclass(frozen=True)
class Everything:
    """Reads all there is and remembers it."""

    seen: list[Image]
    name: ClassVar[str] = "everything"
    reads: ClassVar[tuple[str, ...]] = READINGS

    def select(self, image: Image) -> Tensor:
        self.seen.append(image)
        return in_order(patches(image.layout), image)


def read(model: Any, inputs: Any, how: str) -> list[Image]:
    """What a method sees of every image: of what is needed, of everything, or of an encoder that a caller watches."""
    method = Everything([])
    planned = plan(model, inputs, 0.3, method=method)
    if how == "watched":
        handle = model.model.vision_tower.register_forward_hook(lambda *_: None)
        try:
            select(planned, encode(planned))
        finally:
            handle.remove()
    else:
        select(planned, encode(planned, everything=how == "everything"))
    return method.seen


@each_family
@pytest.mark.parametrize("how", ["needed", "everything", "watched"])
def test_readings_are_the_models_own(name: str, how: str) -> None:
    model = fresh(name)
    inputs = pictures.inputs(name, MIXED if name == "llava_next" else SINGLE)
    seen = read(model, inputs, how)
    model.set_attn_implementation("eager")
    tower, used = model.model.vision_tower, model.config.vision_feature_layer
    keys: list[Tensor] = []
    layers = getattr(tower, "vision_model", tower).encoder.layers
    layers[used].self_attn.k_proj.register_forward_hook(lambda module, given, output: keys.append(output))
    given = {key: inputs[key] for key in ("pixel_values", "image_sizes") if key in inputs}
    with torch.no_grad():
        features = model.get_image_features(**given, return_dict=True).pooler_output
    keys.clear()
    table = model.get_input_embeddings().weight
    rows = [0, 0, 2] if name == "llava_next" else [0, 2]
    assert len(seen) == len(rows)
    for index, image in enumerate(seen):
        layout = image.layout
        pixels = inputs["pixel_values"]
        part = pixels[index][: layout.partitions] if pixels.dim() == 5 else pixels[index : index + 1]
        with torch.no_grad():
            found = tower(part, output_hidden_states=True, output_attentions=True)
        real = patches(layout)
        place = layout.partition[real], layout.cell[real]
        torch.testing.assert_close(image.states[real], found.hidden_states[used][:, 1:][place], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(image.features, features[index], atol=1e-4, rtol=1e-4)
        middle = found.attentions[max(len(layers) * 3 // 8, 0)].mean(2)[:, :, 1:]
        received = found.attentions[used].mean(2)[:, :, 1:]
        torch.testing.assert_close(image.attention.middle, middle, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(image.attention.received, received, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(image.attention.last, found.attentions[used][:, :, 0, 1:], atol=1e-6, rtol=1e-5)
        heads = layers[used].self_attn.num_heads
        own = keys.pop().unflatten(-1, (heads, -1))[:, 1:].permute(0, 2, 3, 1)
        torch.testing.assert_close(image.attention.keys, own, atol=1e-4, rtol=1e-4)
        ids = inputs["input_ids"][rows[index]]
        last = int((ids == model.config.image_token_id).nonzero()[-1])
        assert torch.equal(image.question, table[ids[last + 1 :]])
        assert torch.equal(image.pixels, part)


@pytest.mark.parametrize("name", [name for name in models.ALL if name not in models.CASES])
def test_states_of_families_that_mix_patches_are_what_the_llm_sees(name: str) -> None:
    model = models.shared(name)
    inputs = pictures.inputs(name, [models.ALL[name].sizes[:1], None, models.ALL[name].sizes[1:2]])
    method = Everything([])
    hired.reduce(model, inputs, 0.3, method=method)
    for image in method.seen:
        if image.states is not image.features:
            assert family_of(model).tokenwise
        assert image.features is not None
        assert image.features.shape[0] == image.layout.tokens_full
        assert image.question is not None
        assert image.question.shape[1] == image.features.shape[1]
        for rows in (image.attention.last, image.attention.middle, image.attention.received):
            assert rows is not None
            assert rows.shape[0] == image.layout.partitions
        if not family_of(model).tokenwise:
            assert image.attention.keys is None
        if image.layout.partitions > 1 and name != "lfm2_vl":  # whose encoder takes patches
            assert image.pixels is not None
            assert image.pixels.shape[:2] == (image.layout.partitions, 3)


def test_a_question_in_front_of_the_picture_is_found() -> None:
    model = fresh("llava_next")
    inputs = pictures.inputs("llava_next", [[(64, 64)]], texts=("",))
    ids = inputs["input_ids"][0]
    kept = ids[: int((ids == model.config.image_token_id).nonzero()[-1]) + 1]
    method = Everything([])
    hired.reduce(
        model, {**inputs, "input_ids": kept[None], "attention_mask": torch.ones_like(kept)[None]}, 5, method=method
    )
    text = kept[kept != model.config.image_token_id]
    assert torch.equal(method.seen[0].question, model.get_input_embeddings().weight[text])  # type: ignore[arg-type]


@each_family
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("newlines", ["drop", "keep"])
def test_the_batch_around_changes_nothing(name: str, method: str, newlines: str) -> None:
    model = models.shared(name)
    rows = MIXED if name == "llava_next" else SINGLE
    inputs = pictures.inputs(name, rows)
    together = hired.reduce(model, inputs, 0.25, method=method, newlines=newlines).selection  # type: ignore[arg-type]
    apart = [
        entry
        for index, row in enumerate(rows)
        if row
        for entry in hired.reduce(model, alone(inputs, rows, index), 0.25, method=method, newlines=newlines).selection  # type: ignore[arg-type]
    ]
    assert [entry.rows for entry in together] == [entry.rows for entry in apart]


@each_family
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["everything", "watched"])
def test_every_way_of_encoding_gives_the_same(name: str, method: str, how: str) -> None:
    model = fresh(name)
    inputs = pictures.inputs(name, MIXED if name == "llava_next" else SINGLE)
    mine = hired.reduce(model, inputs, 0.25, method=method)
    planned = plan(model, inputs, 0.25, method=method)
    if how == "watched":
        model.model.vision_tower.register_forward_hook(lambda *_: None)
    encoded = encode(planned, everything=how == "everything")
    kept = select(planned, encoded)
    other = assemble(planned, encoded, kept, project(planned, encoded, kept))
    for one, two in zip(
        mine["mm_encoder_outputs"]["image"].pooler_output,
        other["mm_encoder_outputs"]["image"].pooler_output,
        strict=True,
    ):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", MERGING)
@pytest.mark.parametrize("newlines", ["drop", "keep"])
def test_merged_tokens_by_hand(method: str, newlines: str) -> None:
    """Encoder outputs are merged, then projected; newlines stay what they are."""
    model = models.shared("llava_next")
    inputs = pictures.inputs("llava_next", [[(96, 64)]])
    planned = plan(model, inputs, 0.3, method=method, newlines=newlines)  # type: ignore[arg-type]
    encoded = encode(planned)
    (kept,) = select(planned, encoded)
    assert kept is not None
    layout = planned.layouts[0]
    with torch.no_grad():
        states = model.model.vision_tower(inputs["pixel_values"][0], output_hidden_states=True).hidden_states
        tokens = states[model.config.vision_feature_layer][:, 1:][
            layout.partition.clamp(min=0), layout.cell.clamp(min=0)
        ]
        probe = Everything([])
        hired.reduce(model, inputs, 0.3, method=probe, newlines=newlines)  # type: ignore[arg-type]
        weights = resolve(method, "paper", 0.5).merge(probe.seen[0], kept)  # type: ignore[attr-defined]
        assert bool((weights.sum(1) != 1).any()), "nothing was merged"
        expected = model.model.multi_modal_projector(weights @ tokens)
    structure = layout.partition[kept] == STRUCTURE
    assert bool(structure.any()) == (newlines == "keep")
    expected[structure] = model.model.image_newline.detach()
    (found,) = project(planned, encoded, [kept])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["visionzip", "scope", "divprune"])
def test_training_goes_through_what_was_merged(method: str) -> None:
    model = fresh("llava_next").train()
    inputs = pictures.inputs("llava_next", [[(64, 64)]])
    reduced = hired.reduce(model, inputs, 0.3, method=method)
    model(**reduced).logits.sum().backward()
    tower = model.model.vision_tower
    weight = getattr(tower, "vision_model", tower).encoder.layers[0].self_attn.v_proj.weight
    assert weight.grad is not None
    assert float(weight.grad.abs().sum()) > 0
    kept = hired.reduce(model.eval(), inputs, 0.3, method=method).selection[0].rows
    assert kept == reduced.selection[0].rows


def test_reports_hold_no_more_than_the_initial_layer() -> None:
    """What a method read is not kept alive by what it chose."""
    model, inputs = models.shared("llava_next"), pictures.inputs("llava_next", [[(64, 64)]])
    reduced = hired.reduce(model, inputs, 0.3, method="visionzip")
    attention = reduced._told().attention[0]
    assert all(value is None for value in vars(attention).values())
    assert replace(attention) == attention
