"""Encoders without a CLS token: the attention each patch receives, averaged over all queries."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaNextConfig, LlavaNextForConditionalGeneration

import hired
from hired.encoding import taps
from hired.encoding.taps import received
from hired.families import Encoder, family_of
from hired.reduction import encode, plan, project, select
from tests.support import models, pictures
from tests.support.live import Live
from tests.support.reducing import each_family, kept_rows

ROWS = [[(64, 64), (96, 20)], None, [(20, 70)]]
CLASSES = {
    "llava": (LlavaConfig, LlavaForConditionalGeneration),
    "llava_next": (LlavaNextConfig, LlavaNextForConditionalGeneration),
}


def with_siglip(name: str, implementation: str = "sdpa", **settings: Any) -> Any:
    """A LLaVA with the input size of the usual tiny one, so that its processor fits, and a tower without CLS."""
    config_class, model_class = CLASSES[name]
    settings = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"} | settings
    more = {"image_grid_pinpoints": models.PINPOINTS} if name == "llava_next" else {}
    config = config_class(
        vision_config=models.siglip(image_size=models.SIDE, num_hidden_layers=6),
        text_config=models.text(),
        image_token_index=models.IMAGE_ID,
        **more,
        **settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config).eval()
    for key, parameter in model.model.vision_tower.named_parameters():
        if "q_proj.weight" in key or "k_proj.weight" in key:
            parameter.data *= 3
    model.set_attn_implementation(implementation)
    return model


def plain(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """The whole matrix at once."""
    return (query.float() @ key.float().transpose(-1, -2) * scale).softmax(-1).mean(2)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("everything", [True, False])
def test_rows_equal_eager_attention_averaged_over_queries(name: str, implementation: str, everything: bool) -> None:
    model, inputs = with_siglip(name, implementation), pictures.inputs(name, ROWS)
    planned = plan(model, inputs, 0.3)
    found = encode(planned, everything=everything).attention
    tower = copy.deepcopy(model.model.vision_tower)
    tower.set_attn_implementation("eager")
    for index, (layout, attention) in enumerate(zip(planned.layouts, found, strict=True)):
        pixels = inputs["pixel_values"]
        image = pixels[index][: layout.partitions] if pixels.dim() == 5 else pixels[index : index + 1]
        with torch.no_grad():
            expected = tower(image, output_attentions=True).attentions
        assert attention.first is not None
        assert attention.last is not None
        torch.testing.assert_close(attention.first, expected[1][0].mean(1), atol=1e-5, rtol=1e-4)
        alive = torch.ones(layout.partitions, dtype=torch.bool)
        if not everything:  # partitions without a share were left out
            entry = hired.reduce(model, inputs, 0.3).selection[index]
            alive = torch.tensor(entry.per_partition) > 0
        torch.testing.assert_close(attention.last[alive], expected[-1].mean(2)[alive], atol=1e-5, rtol=1e-4)
        assert float(attention.last.std()) > 1e-3, "nearly uniform attention: the test would see nothing"


@pytest.mark.parametrize("block", [1, 100, 700, 2**22])
def test_blocks_of_queries_make_no_difference(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 3, 23, 8).unbind(0)
    monkeypatch.setattr(taps, "_BLOCK", block)
    torch.testing.assert_close(received(query, key), plain(query, key, 8**-0.5))
    torch.testing.assert_close(received(query, key, scaling=0.7), plain(query, key, 0.7))
    half = received(query.bfloat16(), key.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, plain(query.bfloat16(), key.bfloat16(), 8**-0.5))


@pytest.mark.parametrize("kind", ["keys", "additive", "square", "flat"])
def test_padding_neither_receives_nor_counts(kind: str) -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 2, 3, 9, 8).unbind(0)
    lengths = (9, 5)
    mask = torch.zeros(2, 1, 1, 9, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, ..., :length] = True
    given = {
        "keys": mask,
        "additive": torch.where(mask, 0.0, torch.finfo(torch.float32).min),
        "square": mask & mask.transpose(2, 3),
        "flat": mask[:, 0, 0].long(),
    }[kind]
    found = received(query, key, given)
    for row, length in enumerate(lengths):
        alone = plain(query[row : row + 1, :, :length], key[row : row + 1, :, :length], 8**-0.5)
        torch.testing.assert_close(found[row : row + 1, :, :length], alone)
        assert float(found[row, :, length:].abs().sum()) == 0


def test_memory_does_not_grow_with_the_square() -> None:
    query, key = torch.randn(2, 4, 8, 900, 16).unbind(0)
    with Live() as live:
        received(query, key)
    assert live.peak < 2.5 * taps._BLOCK * 4 < 4 * 8 * 900 * 900 * 4


def test_reading_takes_no_part_in_training() -> None:
    query = torch.randn(1, 1, 4, 8, requires_grad=True)
    assert not received(query, query).requires_grad


def test_scores_leave_the_cls_token_out_wherever_it_stands_and_pool_as_the_model_merges() -> None:
    rows = torch.arange(10.0).view(1, 2, 5)

    def scores(cls: int | None, merge: Tensor | None = None) -> list[list[float]]:
        return Encoder(tower=None, layers=[], states=(1,), cls=cls, merge=merge).scores(rows)[0].tolist()

    assert scores(None) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert scores(0) == [[1, 2, 3, 4], [6, 7, 8, 9]]
    assert scores(-1) == scores(4) == [[0, 1, 2, 3], [5, 6, 7, 8]]
    assert scores(0, torch.tensor([[0, 3], [1, 2]])) == [[2.5, 2.5], [7.5, 7.5]]
    assert scores(-1, torch.tensor([[0, 1], [2, 3]])) == [[0.5, 2.5], [5.5, 7.5]]


@each_family
@pytest.mark.parametrize("budget", [0.5, 0.1, 7])
def test_a_siglip_tower_under_llava(name: str, budget: float) -> None:
    """Every encoder saving, without a CLS token: kept tokens and features are those of the whole encoder."""
    model, inputs = with_siglip(name), pictures.inputs(name, ROWS)
    reduced = hired.reduce(model, inputs, budget)
    planned = plan(model, inputs, budget)
    encoded = encode(planned, everything=True)
    kept = select(planned, encoded)
    assert kept_rows(reduced) == [
        list(range(layout.tokens_full)) if rows is None else rows.tolist()
        for layout, rows in zip(planned.layouts, kept, strict=True)
    ]
    features = reduced["mm_encoder_outputs"]["image"].pooler_output
    for one, other in zip(features, project(planned, encoded, kept), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    narrowed = hired.reduce(model, inputs, budget, encoder_budget=1.5).selection
    assert [entry.per_partition for entry in narrowed] == [entry.per_partition for entry in reduced.selection]
    wide = hired.reduce(model, inputs, budget, encoder_budget=100)
    assert kept_rows(wide) == kept_rows(reduced)


def test_budget_one_is_the_untouched_model_without_cls() -> None:
    model, inputs = with_siglip("llava_next"), pictures.inputs("llava_next", ROWS)
    with torch.no_grad():
        assert torch.equal(model(**hired.reduce(model, inputs, 1.0)).logits, model(**inputs).logits)


@pytest.mark.parametrize("name", CLASSES)
def test_a_select_strategy_that_drops_a_patch_is_refused(name: str) -> None:
    model = with_siglip(name, vision_feature_select_strategy="default")
    with pytest.raises(hired.UnsupportedModelError, match="drops the first patch"):
        hired.reduce(model, pictures.inputs(name, ROWS), 0.3)
    with pytest.raises(hired.UnsupportedModelError, match="drops the first patch"):
        family_of(model).parts(model)
