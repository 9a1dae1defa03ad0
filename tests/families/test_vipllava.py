"""ViP-LLaVA: which layers make the features, in which order, and encoders that the model does not fit."""

from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, VipLlavaConfig, VipLlavaForConditionalGeneration

import hired
from hired.errors import UnsupportedModelError
from hired.families.vipllava import VipLlava
from hired.reduction import encode, plan
from tests.support import models, pictures

NAME = "vipllava"


def test_the_states_stand_in_the_order_of_the_configuration() -> None:
    encoder = VipLlava().parts(models.shared(NAME))
    assert encoder.states == (3, 1, 2)
    assert encoder.last == 2


def test_the_layers_of_the_released_checkpoint() -> None:
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=24, num_attention_heads=2, image_size=336, patch_size=14
    )
    with torch.device("meta"):
        model = VipLlavaForConditionalGeneration(VipLlavaConfig(vision_config=vision, text_config=models.text()))
    encoder = VipLlava().parts(model)
    assert encoder.states == (23, 20, 17, 14, 6)
    assert (encoder.last, encoder.cls) == (22, 0)
    layout = VipLlava().layouts(model, {"pixel_values": torch.empty(1, 3, 336, 336, device="meta")}, None)[0]
    assert layout.tokens_full == 576


def test_kept_features_are_the_untouched_models_also_under_an_encoder_budget_of_everything() -> None:
    """The tokens that go on into the later layers are cut out of the states that were kept before."""
    model, inputs = models.shared(NAME), pictures.inputs(NAME, [[(64, 64)], [(90, 31)]])
    untouched = model.get_image_features(inputs["pixel_values"]).pooler_output
    for settings in ({}, {"encoder_budget": 100.0}):
        reduced = hired.reduce(model, inputs, 5, **settings)
        kept = torch.cat([part[entry.rows] for part, entry in zip(untouched, reduced.selection, strict=True)])
        found = reduced["mm_encoder_outputs"]["image"].pooler_output
        assert found.shape == (10, 1, 64)
        torch.testing.assert_close(found[:, 0], kept, atol=1e-5, rtol=1e-4)
    assert hired.reduce(model, inputs, 5, encoder_budget=1.2).selection[0].tokens_kept == 5


def test_scores_are_the_cls_rows_of_eager_attention() -> None:
    model, inputs = models.ALL[NAME].model(), pictures.inputs(NAME, [[(64, 64)]])
    found = encode(plan(model, inputs, 0.3)).attention[0]
    model.set_attn_implementation("eager")
    attentions = model.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions
    torch.testing.assert_close(found.first, attentions[0][0, :, 0, 1:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.last[0], attentions[2][0, :, 0, 1:], atol=1e-5, rtol=1e-4)


def siglip(config: Any) -> None:
    config.vision_config = models.siglip()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (siglip, "drops the first patch"),
        (lambda config: setattr(config.vision_config, "model_type", "vit"), "'vit' is not supported"),
    ],
)
def test_other_encoders_are_refused(change: Any, words: str) -> None:
    model, inputs = models.ALL[NAME].model(), pictures.inputs(NAME, [[(64, 64)]])
    change(model.config)
    with pytest.raises(UnsupportedModelError, match=words):
        hired.reduce(model, inputs, 0.3)
