"""What happens to a request before the model: placeholders, cache keys, refusals. No engine runs."""

import copy
import logging
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import REGISTRY
from transformers import CLIPVisionConfig, PixtralVisionConfig, SiglipVisionConfig
from vllm.config import ModelConfig
from vllm.exceptions import VLLMValidationError
from vllm.model_executor.models.interns1 import InternS1ForConditionalGeneration
from vllm.model_executor.models.llava import LlavaForConditionalGeneration
from vllm.model_executor.models.llava_next import LlavaNextForConditionalGeneration
from vllm.model_executor.models.llava_onevision import LlavaOnevisionForConditionalGeneration
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from vllm.model_executor.models.qwen2_vl import Qwen2VLForConditionalGeneration
from vllm.model_executor.models.qwen3_vl import Qwen3VLForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.cache import MultiModalProcessorOnlyCache
from vllm.multimodal.processing import InputProcessingContext
from vllm.tokenizers import cached_tokenizer_from_config

import hired
from hired.errors import BudgetError, InputsError, UnsupportedModelError
from hired.vllm.metrics import REQUEST_LOG
from hired.vllm.settings import SERVABLE
from hired.vllm.starting import StartError
from tests.support.pictures import noise
from tests.vllm.support import QWEN, Case, prompt

STOCK: dict[str, Any] = {"InternVLForConditionalGeneration": InternS1ForConditionalGeneration} | {
    each.__name__: each
    for each in (
        LlavaNextForConditionalGeneration,
        LlavaForConditionalGeneration,
        LlavaOnevisionForConditionalGeneration,
        Qwen2VLForConditionalGeneration,
        Qwen2_5_VLForConditionalGeneration,
        Qwen3VLForConditionalGeneration,
    )
}
COUNTERS = ("hired:requests_total", "hired:visual_tokens_total", "hired:kept_visual_tokens_total")
SIZES = [
    (64, 64),
    (90, 31),
    (31, 90),
    (20, 20),
    (1, 1),
    (200, 20),
    (20, 200),
    (97, 33),
    (33, 97),
    (640, 480),
    (63, 65),
    (190, 190),
    (250, 81),
    (81, 250),
]
SERVED = ["tiny", "llava_next", "llava", "llava_onevision", "internvl", *QWEN]


def configured(case: Case, hired: Any = None, **settings: Any) -> ModelConfig:
    if hired is not None:
        settings["hf_overrides"] = {"hired": hired}
    return ModelConfig(str(case.folder), dtype="float32", max_model_len=1024, **settings)


def processor(case: Case, budget: Any = None, **settings: Any) -> Any:
    hired = None if budget is None else {"budget": budget}
    return MULTIMODAL_REGISTRY.create_processor(configured(case, hired, **settings))


def stock_processor(case: Case) -> Any:
    """vLLM's own, whatever is registered."""
    config = configured(case)
    factories = STOCK[config.architectures[0]]._processor_factory
    return factories.build_processor(InputProcessingContext(config, cached_tokenizer_from_config(config)))


def process(
    made: Any, case: Case, sizes: list[tuple[int, int]], *, uuids: Any = None, cache: Any = None, **kwargs: Any
) -> Any:
    pictures = [noise(size, seed) for seed, size in enumerate(sizes)]
    items = made.info.parse_mm_data({"image": pictures})
    uuids = None if uuids is None else {"image": uuids}
    return made(prompt(case, pictures, "b:"), items, uuids, hf_processor_mm_kwargs=kwargs, cache=cache)


def counts(processed: Any) -> list[int]:
    return [place.get_num_embeds() for place in processed["mm_placeholders"]["image"]]


@pytest.mark.parametrize("name", SERVED)
def test_without_a_budget_everything_is_vllms_own(cases: dict[str, Case], name: str) -> None:
    ours, stock = processor(cases[name]), stock_processor(cases[name])
    assert type(ours) is type(stock)
    assert type(ours.info) is type(stock.info)
    mine, theirs = (process(made, cases[name], SIZES[:3]) for made in (ours, stock))
    assert mine["prompt_token_ids"] == theirs["prompt_token_ids"]
    assert mine["mm_hashes"] == theirs["mm_hashes"]
    assert mine["mm_placeholders"] == theirs["mm_placeholders"]
    assert mine["mm_kwargs"].keys() == theirs["mm_kwargs"].keys()
    assert mine["mm_kwargs"]["image"][0].keys() == theirs["mm_kwargs"]["image"][0].keys()


@pytest.mark.parametrize("name", SERVED)
def test_at_full_budget_placeholders_are_those_of_vllm(cases: dict[str, Case], name: str) -> None:
    ours, stock = processor(cases[name], 1.0), stock_processor(cases[name])
    mine, theirs = (process(made, cases[name], SIZES) for made in (ours, stock))
    assert mine["prompt_token_ids"] == theirs["prompt_token_ids"]
    assert mine["mm_placeholders"] == theirs["mm_placeholders"]


@pytest.mark.parametrize("budget", [0.1, 0.5, 7, 60, 100_000])
@pytest.mark.parametrize("name", SERVED[1:])
def test_placeholders_are_what_the_library_keeps(cases: dict[str, Case], name: str, budget: float) -> None:
    case = cases[name]
    pictures = [noise(size, seed) for seed, size in enumerate(SIZES)]
    inputs = case.processor(text=prompt(case, pictures, "b:"), images=pictures, return_tensors="pt")
    if budget == 0.1:  # more where the smallest picture has few tokens
        budget = {"llava": 0.2, **dict.fromkeys(("internvl", *QWEN), 0.25)}.get(name, budget)
    expected = [entry.tokens_kept for entry in hired.reduce(case.model, inputs, budget).selection]
    made = processor(case, budget)
    processed = process(made, case, SIZES)
    assert counts(processed) == expected
    assert max(expected) <= made.info.get_mm_max_tokens_per_item(1024, {"image": 1})["image"]
    token = case.model.config.image_token_id
    assert processed["prompt_token_ids"].count(token) == sum(expected)
    # The same under a generous server, by request.
    assert counts(process(processor(case, 1.0), case, SIZES, hired_budget=budget)) == expected


@pytest.mark.parametrize("budget", [1.0, 0.3, 60, 10_000])
@pytest.mark.parametrize("name", SERVED)
def test_no_picture_keeps_more_than_the_most(cases: dict[str, Case], name: str, budget: float) -> None:
    """More would never be scheduled."""
    info = processor(cases[name], budget).info
    most = info.get_mm_max_tokens_per_item(2048, {"image": 1})["image"]
    sizes = [(width, height) for width in range(20, 300, 20) for height in range(25, 300, 55)]
    counts = [info.get_num_image_tokens(image_width=width, image_height=height) for width, height in sizes]
    assert 0.7 * most <= max(counts) <= most


@pytest.mark.parametrize("budget", [0.2, 7])
def test_memory_is_profiled_on_the_largest_picture(cases: dict[str, Case], budget: float) -> None:
    stock = stock_processor(cases["tiny"]).info.get_image_size_with_most_features()
    assert processor(cases["tiny"], budget).info.get_image_size_with_most_features() == stock
    for name, partitions in (("tiny", 5), ("llava_onevision", 17)):
        dummies = processor(cases[name], budget).get_dummy_mm_inputs({"image": 1})["mm_kwargs"]["image"][0]
        assert dummies["pixel_values"].data.shape[0] == partitions  # the most that the model cuts


def test_budgets_and_methods_enter_the_keys(cases: dict[str, Case]) -> None:
    case = cases["llava_next"]
    one = [(64, 64)]
    hashes = {}
    for server, alpha, method, own, uuid in [
        (0.5, 0.5, "hired", None, None),
        (0.4, 0.5, "hired", None, None),
        (0.5, 0.4, "hired", None, None),
        (0.5, 0.5, "hired", 0.3, None),
        (0.5, 0.5, "scope", 0.3, None),
        (40, 0.5, "hired", None, None),
        (0.5, 0.5, "hired", None, "mine"),
        (0.4, 0.5, "hired", None, "mine"),
        *((0.5, 0.5, name, None, None) for name in SERVABLE if name != "hired"),
        *((0.5, 0.5, name, None, "mine") for name in SERVABLE if name != "hired"),
    ]:
        settings = {"budget": server, "alpha": alpha, "method": method}
        made = MULTIMODAL_REGISTRY.create_processor(configured(case, settings))
        kwargs = {} if own is None else {"hired_budget": own}
        found = process(made, case, one, uuids=uuid and [uuid], **kwargs)["mm_hashes"]["image"][0]
        hashes[server, alpha, method, own, uuid] = found
    stock = process(stock_processor(case), case, one)["mm_hashes"]["image"][0]
    assert len({*hashes.values(), stock}) == len(hashes) + 1
    # The server's own budget, asked for by name, is no other budget; nor is the default method another.
    again = process(processor(case, 0.5), case, one, hired_budget=0.5)["mm_hashes"]["image"][0]
    assert again == hashes[0.5, 0.5, "hired", None, None]


def test_one_cache_for_several_budgets(cases: dict[str, Case]) -> None:
    case = cases["llava_next"]
    made = processor(case, 0.5)
    cache = MultiModalProcessorOnlyCache(made.info.ctx.model_config)
    cold = {own: counts(process(made, case, SIZES[:2], hired_budget=own)) for own in (0.5, 0.2, 10)}
    assert len({tuple(found) for found in cold.values()}) == 3
    for own in (0.5, 0.2, 10, 0.2, 0.5, 10):
        processed = process(made, case, SIZES[:2], cache=cache, hired_budget=own)
        assert counts(processed) == cold[own]
        assert [item["hired_image"].data[2].item() for item in processed["mm_kwargs"]["image"]] == cold[own]
    # Named by the client, and later by that name alone.
    assert counts(process(made, case, SIZES[:1], uuids=["a"], cache=cache, hired_budget=0.2)) == cold[0.2][:1]
    absent = made.info.parse_mm_data({"image": [None]})
    text = prompt(case, [None], "b:")
    again = made(text, absent, {"image": ["a"]}, hf_processor_mm_kwargs={"hired_budget": 0.2}, cache=cache)
    assert counts(again) == cold[0.2][:1]
    with pytest.raises(ValueError, match="Cache miss"):
        made(text, absent, {"image": ["a"]}, hf_processor_mm_kwargs={"hired_budget": 10}, cache=cache)
    # Pictures of one prompt, one of them seen before.
    mixed = process(made, case, [SIZES[0], (5, 90)], cache=cache, hired_budget=0.2)
    assert counts(mixed) == counts(process(made, case, [SIZES[0], (5, 90)], hired_budget=0.2))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (0.6, "above the server's budget 0.5"),
        (0, "hired_budget: budget must be above 0"),
        (-1, "above 0"),
        (1.5, "neither a share"),
        (True, "must be a number"),
        ("0.2", "must be a number"),
        (None, "must be a number"),
        (float("nan"), "finite"),
        (0.001, "leaves no token"),
        (1000, "above the server's budget 0.5"),
    ],
)
def test_invalid_requests(cases: dict[str, Case], own: Any, message: str) -> None:
    with pytest.raises(BudgetError, match=message) as caught:
        process(processor(cases["llava_next"], 0.5), cases["llava_next"], [(64, 64)], hired_budget=own)
    assert isinstance(caught.value, ValueError)  # which vLLM's server answers with HTTP 400


@pytest.mark.parametrize("name", ["hired_alpha", "hired_method"])
def test_requests_may_set_nothing_else(cases: dict[str, Case], name: str) -> None:
    with pytest.raises(BudgetError, match=name):
        process(processor(cases["llava"], 0.5), cases["llava"], [(64, 64)], **{name: "uniform"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0.2, "must be"),
        ({}, "must be"),
        ({"budget": 0.2, "aplha": 0.5}, "aplha"),
        ({"budget": 0}, "above 0"),
        ({"budget": "20%"}, "must be a number"),
        ({"budget": 0.2, "alpha": 2}, "alpha"),
        ({"budget": 0.2, "alpha": 2, "method": "scope"}, "alpha"),
        ({"budget": 0.2, "method": "best"}, "unknown method 'best'"),
        ({"budget": 0.2, "method": None}, "unknown method None"),
        ({"budget": 0.2, "method": ["hired"]}, "unknown method"),
        ({"budget": 0.2, "method": "cdpruner"}, "'cdpruner' cannot be served: it reads the question"),
        ({"budget": 0.2, "method": "published"}, "'published' cannot be served"),
        ({"budget": 0.0001}, "leaves no token"),
    ],
)
def test_invalid_servers(cases: dict[str, Case], given: Any, message: str) -> None:
    """vLLM takes a `ValueError` for a model without pictures, and starts."""
    with pytest.raises(StartError, match=message) as caught:
        MULTIMODAL_REGISTRY.create_processor(configured(cases["llava_next"], given))
    assert not isinstance(caught.value, ValueError)
    with pytest.raises(StartError):
        _ = configured(cases["llava_next"], given).supports_multimodal_inputs


def test_a_budget_for_requests_is_none_of_the_servers(cases: dict[str, Case]) -> None:
    with pytest.raises(StartError, match="hf-overrides"):
        processor(cases["llava"], 0.5, mm_processor_kwargs={"hired_budget": 0.1})
    processor(cases["llava"], mm_processor_kwargs={"hired_budget": 0.1})  # not pruned: vLLM's own


def test_embeddings_are_refused_in_the_request(cases: dict[str, Case]) -> None:
    """Also where vLLM lets them in, as it does for a server that receives caches."""
    made = processor(cases["llava_next"], 0.5, enable_mm_embeds=True)
    items = made.info.parse_mm_data(
        {"image": torch.zeros(1, 124, cases["llava_next"].model.config.text_config.hidden_size)}
    )
    with pytest.raises(InputsError, match="send the pictures"):
        made(prompt(cases["llava_next"], [None], "b:"), items)


def test_a_configuration_is_written_out_once(cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM asks for every request."""
    config = configured(cases["llava_next"], {"budget": 0.5})
    first = MULTIMODAL_REGISTRY.create_processor(config)
    monkeypatch.setattr(type(config.hf_config), "to_json_string", lambda *given, **named: pytest.fail("written again"))
    assert MULTIMODAL_REGISTRY.create_processor(config).info.geometry is first.info.geometry


@pytest.mark.parametrize(
    ("vision", "strategy", "message"),
    [
        (SiglipVisionConfig(image_size=32, patch_size=8), "default", "drops the first patch"),
        (CLIPVisionConfig(image_size=32, patch_size=8), "full", "keeps the CLS token"),
        (PixtralVisionConfig(image_size=32, patch_size=8), "full", "'pixtral' is not supported"),
    ],
)
def test_encoders_that_cannot_be_read_are_refused(
    cases: dict[str, Case], vision: Any, strategy: str, message: str
) -> None:
    config = configured(cases["llava"], {"budget": 0.5})
    config.hf_config.vision_config = vision
    config.hf_config.vision_feature_select_strategy = strategy
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        MULTIMODAL_REGISTRY.create_processor(copy.deepcopy(config))  # one that was not looked at
    assert not isinstance(caught.value, ValueError)


def test_videos_are_refused(cases: dict[str, Case]) -> None:
    videos = {"video": [np.zeros((2, 34, 34, 3), dtype=np.uint8)]}
    assert stock_processor(cases["llava_onevision"]).info.parse_mm_data(videos)
    with pytest.raises(VLLMValidationError, match="0 video"):
        processor(cases["llava_onevision"], 0.5).info.parse_mm_data(videos)


def test_vllms_packing_of_onevision_is_fixed(cases: dict[str, Case]) -> None:
    config = configured(cases["llava_onevision"], {"budget": 0.5})
    config.hf_config.vision_aspect_ratio = "anyres_max_4"
    with pytest.raises(UnsupportedModelError, match="anyres_max_9") as caught:
        MULTIMODAL_REGISTRY.create_processor(config)
    assert not isinstance(caught.value, ValueError)


def test_one_line_a_request_and_counters(cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(record.getMessage()))
    logger = logging.getLogger(REQUEST_LOG)
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "isEnabledFor", lambda level: True)
    made = processor(cases["llava_next"], 0.5)
    before = [REGISTRY.get_sample_value(name) for name in COUNTERS]
    made.get_dummy_mm_inputs({"image": 1})
    processed = process(made, cases["llava_next"], [(64, 64), (20, 20)])
    assert counts(processed) == [40, 16]
    after = [REGISTRY.get_sample_value(name) for name in COUNTERS]
    assert [new - old for old, new in zip(before, after, strict=True)] == [1, 124, 56]
    assert lines == ["HiRED: kept 56 of 124 visual tokens, images=2, budget=1/2"]
