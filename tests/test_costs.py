"""Costs worked out from the configuration, against what models really have and do."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hired.costs.flops import (
    LLM,
    decode_flops,
    encoder_flops,
    prefill_flops,
    projector_flops,
    used_layers,
)
from hired.costs.shapes import SHAPES, config_of, meta_model, shape_config
from hired.errors import HiredError, ModelLoadError, UnsupportedModelError
from tests.support.models import CASES


def counted(run):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def squares_not_needed(config, length):
    """What the counter adds: L^2 pairs of a causal attention where L (L + 1) / 2 are needed."""
    llm = LLM.of(config)
    return llm.layers * 4 * (length**2 - length * (length + 1) // 2) * llm.heads * llm.head_dim


@pytest.fixture(scope="module")
def half_b():
    """The 0.5B shape without memory: grouped queries, tied embeddings, biases."""
    config = shape_config("llava-next-0.5b")
    config._attn_implementation = "eager"
    return meta_model(config)


@pytest.mark.parametrize("partitions", [1, 3])
def test_encoder_flops_are_what_torch_counts(half_b, partitions):
    pixels = torch.empty(partitions, 3, 336, 336, device="meta")
    assert counted(lambda: half_b.model.vision_tower(pixels)) == encoder_flops(half_b.config, partitions)


def test_a_narrowed_encoder_costs_what_its_parts_cost(half_b):
    """Layers 0..3 on all patches, the others on a few: what torch counts for the two pieces."""
    tower, config = half_b.model.vision_tower, half_b.config
    pixels = torch.empty(2, 3, 336, 336, device="meta")
    layers = next(module for name, module in tower.named_modules() if name.endswith("encoder.layers"))

    def late(patches):
        return 19 * counted(lambda: layers[0](torch.empty(1, patches + 1, 1024, device="meta"), attention_mask=None))

    early = counted(lambda: tower(pixels)) - 2 * 20 * counted(
        lambda: layers[0](torch.empty(1, 577, 1024, device="meta"), attention_mask=None)
    )
    attention = layers[4].self_attn
    wide = torch.empty(2, 577, 1024, device="meta")
    look = counted(lambda: (attention.q_proj(wide), attention.k_proj(wide), attention.v_proj(wide)))
    narrowed = encoder_flops(config, 2, used_layers(config), narrow_after=4, kept=[100, 30])
    assert early + look + late(100) + late(30) == narrowed


def test_projector_flops_are_what_torch_counts(half_b):
    features = torch.empty(70, 1024, device="meta")
    assert counted(lambda: half_b.model.multi_modal_projector(features)) == projector_flops(half_b.config, 70)


@pytest.mark.parametrize("length", [1, 50])
def test_prefill_flops_are_what_torch_counts(half_b, length):
    ids = torch.zeros(1, length, dtype=torch.int64, device="meta")
    expected = prefill_flops(half_b.config, length) + squares_not_needed(half_b.config, length)
    assert counted(lambda: half_b(input_ids=ids, logits_to_keep=1)) == expected


@pytest.mark.parametrize("name", ["llava_next", "llava"])
def test_decode_flops_are_what_generate_spends_after_the_prefill(name):
    model, length = CASES[name].model(), 9
    model.set_attn_implementation("eager")  # the counter does not see the CPU's sdpa
    ids = torch.full((1, length), 7)

    def generate(tokens):
        return counted(lambda: model.generate(input_ids=ids, min_new_tokens=tokens, max_new_tokens=tokens))

    assert generate(1) == prefill_flops(model.config, length) + squares_not_needed(model.config, length)
    assert generate(6) - generate(1) == decode_flops(model.config, length, 6)


def test_shapes_are_the_checkpoints_architectures():
    """Parameter counts of llava-hf's safetensors files; CLIP-L/14-336 and Qwen2-0.5B by their own."""
    counts = {name: sum(p.numel() for p in meta_model(shape_config(name)).parameters()) for name in SHAPES}
    assert counts["llava-next-7b"] == 7_063_431_168
    assert counts["llava-1.5-7b"] == 7_063_427_072
    clip, qwen, newline = 303_507_456, 494_032_768, 896
    projector = 1024 * 896 + 896 + 896 * 896 + 896
    assert counts["llava-next-0.5b"] == clip + qwen + projector + newline
    assert used_layers(shape_config("llava-next-7b")) == 23


@pytest.mark.parametrize("name", ["", "/no/such/model", "llava-next-8b"])
def test_an_unknown_model_is_one_clear_error(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelLoadError, match=r"llava-next-0\.5b"):
        config_of(name)


def test_models_that_the_formulas_do_not_describe_are_refused(tmp_path):
    config = shape_config("llava-1.5-7b")
    config.text_config.model_type = "mixtral"
    with pytest.raises(UnsupportedModelError, match="mixtral"):
        prefill_flops(config, 10)
    config.vision_config.model_type = "siglip_vision_model"
    with pytest.raises(UnsupportedModelError, match="siglip"):
        encoder_flops(config, 1)
    config.text_config.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError):
        config_of(str(tmp_path))


def test_layers_that_do_not_exist_are_refused():
    config = shape_config("llava-1.5-7b")
    with pytest.raises(HiredError):
        encoder_flops(config, 1, 25)
    with pytest.raises(HiredError):
        encoder_flops(config, 2, narrow_after=4, kept=[100])
