"""What `generate` and `forward` make of the reduced mapping, wherever the model lies."""

from typing import Any

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from transformers import BatchFeature, DynamicCache
from transformers.generation.streamers import BaseStreamer

import hired
from hired.caching import cache_argument, cache_of
from tests.support import byhand, models, pictures
from tests.support.reducing import MIXED, alone, every_family, generate, kept_rows

# --- The mapping -------------------------------------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("kind", [dict, BatchFeature])
def test_the_callers_inputs_are_not_changed(name: str, kind: Any) -> None:
    model = models.shared(name)
    inputs = kind(dict(pictures.inputs(name, MIXED)))
    before = {key: value.clone() for key, value in inputs.items()}
    reduced = hired.reduce(model, inputs, 0.2)
    generate(model, reduced, num_beams=2)
    assert inputs.keys() == before.keys()
    assert all(torch.equal(inputs[key], before[key]) for key in before)
    assert isinstance(reduced, BatchFeature)


@every_family
def test_generate_any_number_of_times_on_one_mapping(name: str) -> None:
    model = models.shared(name)
    reduced = hired.reduce(model, pictures.inputs(name, [[(64, 64), (96, 20)], [(20, 70)]]), 0.25)
    greedy = [generate(model, reduced) for _ in range(2)]
    beams = [generate(model, reduced, num_beams=3) for _ in range(2)]
    assert torch.equal(*greedy)
    assert torch.equal(*beams)
    assert torch.equal(generate(model, reduced), greedy[0]), "beam search changed the mapping"
    with torch.no_grad():
        assert torch.equal(model(**reduced).logits, model(**reduced).logits)


@every_family
@pytest.mark.parametrize("positions", ["consecutive", "original"])
def test_beams_over_unequal_images_equal_beams_over_each_row(name: str, positions: Any) -> None:
    model = models.shared(name)
    rows = [[(64, 64), (96, 20)], [(20, 70)], [(30, 31), (70, 50)]]
    inputs = pictures.inputs(name, rows)
    reduced = hired.reduce(model, inputs, 0.25, positions=positions)
    settings = {"num_beams": 3, "eos_token_id": None, "pad_token_id": 0, "max_new_tokens": 5}
    together = generate(model, reduced, **settings)
    for index in range(len(rows)):
        new = generate(model, hired.reduce(model, alone(inputs, rows, index), 0.25, positions=positions), **settings)
        assert new[0].tolist() == together[index].tolist()


@every_family
def test_num_return_sequences(name: str) -> None:
    model = models.shared(name)
    reduced = hired.reduce(model, pictures.inputs(name, [[(64, 64), (96, 20)], [(20, 70)]]), 0.25)
    several = generate(model, reduced, num_beams=3, num_return_sequences=3)
    assert several.shape[0] == 6
    best = generate(model, reduced, num_beams=3)
    assert torch.equal(several[::3, : best.shape[1]], best)
    torch.manual_seed(0)
    assert generate(model, reduced, do_sample=True, num_return_sequences=4).shape[0] == 8


@every_family
def test_output_is_sliced_by_the_reduced_prompt(name: str) -> None:
    model = models.shared(name)
    reduced = hired.reduce(model, pictures.inputs(name, [[(64, 64)]]), 0.25)
    output = model.generate(**reduced, max_new_tokens=4, do_sample=False)
    width = reduced["input_ids"].shape[1]
    assert torch.equal(output[:, :width], reduced["input_ids"])
    assert 1 <= output.shape[1] - width <= 4


class Collector(BaseStreamer):
    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        self.calls.append(value.flatten().tolist())

    def end(self) -> None:
        self.ended = True


@every_family
def test_streamers(name: str) -> None:
    model = models.shared(name)
    reduced = hired.reduce(model, pictures.inputs(name, [[(64, 64)]]), 0.25)
    streamer = Collector()
    new = generate(model, reduced, streamer=streamer)
    assert streamer.ended
    assert streamer.calls[0] == reduced["input_ids"][0].tolist()
    assert [token for call in streamer.calls[1:] for token in call] == new[0].tolist()


@every_family
@pytest.mark.parametrize("positions", ["consecutive", "original"])
def test_a_second_turn_with_the_kept_cache(name: str, positions: Any) -> None:
    model = models.shared(name)
    inputs = pictures.inputs(name, [[(64, 64), (30, 31)]])
    reduced = hired.reduce(model, inputs, 0.25, positions=positions)
    settings = {"eos_token_id": None, "pad_token_id": 0, "max_new_tokens": 4, "do_sample": False}
    cache = DynamicCache(config=model.config.get_text_config())
    named = cache_argument(model)
    first = model.generate(**reduced, **settings, **{named: cache}, return_dict_in_generate=True)
    question = torch.tensor([[30, 31, 32]])
    ids = torch.cat((first.sequences, question), 1)
    second = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if positions == "original":
        grown = torch.arange(ids.shape[1] - reduced["input_ids"].shape[1]) + 1 + reduced["position_ids"].max()
        whole["position_ids"] = torch.cat((reduced["position_ids"], grown[None]), 1)
        second["position_ids"] = whole["position_ids"]
    kept = model.generate(**second, **settings, **{named: cache_of(first)})
    anew = model.generate(**whole, **settings, mm_encoder_outputs=reduced["mm_encoder_outputs"])
    assert kept.tolist() == anew.tolist()
    # And what the first turn said is what the by-hand loop says.
    row = byhand.rows(model, inputs, kept_rows(reduced), positions)[0]
    assert first.sequences[0, reduced["input_ids"].shape[1] :].tolist() == byhand.decode(model, row, 4, stop=None)


@every_family
def test_to_moves_and_casts_the_features_too(name: str) -> None:
    reduced = hired.reduce(models.shared(name), pictures.inputs(name, MIXED), 0.25)
    width = reduced["input_ids"].shape[1]
    assert reduced.to(torch.bfloat16) is reduced
    assert {f.dtype for f in reduced["mm_encoder_outputs"]["image"].pooler_output} == {torch.bfloat16}
    assert reduced["input_ids"].dtype == torch.int64
    model = models.ALL[name].model().to(torch.bfloat16)
    assert generate(model, reduced).shape[0] == 3
    moved = reduced.to("meta")
    assert moved["input_ids"].shape == (3, width)
    assert {moved[key].device.type for key in ("input_ids", "attention_mask")} == {"meta"}
    assert {f.device.type for f in moved["mm_encoder_outputs"]["image"].pooler_output} == {"meta"}
    assert len(moved.selection) == len(reduced.selection) == 3


@every_family
def test_no_gradients_unless_the_model_trains(name: str) -> None:
    model = models.ALL[name].model()
    inputs = pictures.inputs(name, [[(64, 64)]])
    inputs["labels"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == model.config.image_token_id, -100)
    reduced = hired.reduce(model, inputs, 0.25)
    assert not any(f.requires_grad for f in reduced["mm_encoder_outputs"]["image"].pooler_output)
    model.train()
    reduced = hired.reduce(model, inputs, 0.25)
    model(**reduced).loss.backward()
    projector = model.model.multi_modal_projector.linear_1.weight
    assert projector.grad is not None
    assert float(projector.grad.abs().sum()) > 0


@every_family
def test_the_encoder_runs_once(name: str) -> None:
    model = models.ALL[name].model()
    calls = []
    model.model.vision_tower.register_forward_pre_hook(lambda *_: calls.append(1))
    reduced = hired.reduce(model, pictures.inputs(name, MIXED), 0.25)
    generate(model, reduced)
    generate(model, reduced, num_beams=2)
    assert len(reduced.selection) == 3
    assert len(calls) == 1


# --- Dispatch ----------------------------------------------------------------------------------------------------


@every_family
@pytest.mark.filterwarnings("ignore:You are calling .generate")
@pytest.mark.parametrize("offload", ["none", "language_model", "vision_tower", "all"])
def test_device_map(name: str, offload: str) -> None:
    model = models.ALL[name].model()
    if offload == "none":
        model = dispatch_model(model, device_map={"": "cpu"}, force_hooks=True)
    elif offload == "all":
        model = cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        cpu_offload(getattr(model.model, offload), execution_device=torch.device("cpu"))
    assert any(hasattr(module, "_hf_hook") for module in model.modules())
    inputs = pictures.inputs(name, [[(64, 64), (96, 20)], [(20, 70)]])
    reduced = hired.reduce(model, inputs, 0.25)
    expected = hired.reduce(models.shared(name), inputs, 0.25)
    assert kept_rows(reduced) == kept_rows(expected)
    assert torch.equal(generate(model, reduced), generate(models.shared(name), expected))
