"""The Qwen-VL families: positions of kept tokens, resolutions, and what their encoder is given."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from vllm.exceptions import VLLMValidationError
from vllm.model_executor.models.qwen2_vl import Qwen2VLForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY

import hired
from hired.core.budget import Budget
from hired.errors import BudgetError, InputsError, UnsupportedModelError
from hired.families import family_for
from hired.families.native import native_layout
from hired.vllm.families import qwen
from hired.vllm.geometry import NativeGeometry, geometry_of, limits_of
from hired.vllm.starting import StartError
from tests.support.models import shared
from tests.support.pictures import noise
from tests.vllm.support import QWEN, Case, answer, clear, generate, model_of, noisy, prompt, request
from tests.vllm.test_processor import configured, counts, process, processor

UNIT = 8
LIMITS = (4 * UNIT**2, 64 * UNIT**2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("grid", [(3, 5), (1, 16_383), (16_383, 1), (129, 127)])
def test_rows_and_columns_survive_every_dtype(grid: tuple[int, int], dtype: torch.dtype) -> None:
    layout = native_layout(grid, None, (1, 1))
    kept = torch.arange(grid[0] * grid[1])[::7]
    features = torch.zeros(len(kept), 2, dtype=dtype)
    digits = torch.cat((features, qwen.written(layout, kept).to(features)), 1)[:, -qwen.CHANNELS :]
    assert qwen.read(digits).tolist() == [(kept // grid[1]).tolist(), (kept % grid[1]).tolist()]
    assert torch.equal(qwen.written(layout, None)[kept], qwen.written(layout, kept))


@pytest.mark.parametrize("pictures", [[], [(0, 3, 5)], [(2, 2, 7), (6, 1, 1)], [(1, 4, 2), (5, 4, 9)], [(4, 6, 3)]])
def test_positions_go_on_behind_the_whole_picture(pictures: list[tuple[int, int, int]]) -> None:
    expected: list[int] = []
    place, starts = 0, {offset: (count, extent) for offset, count, extent in pictures}
    while len(expected) < 10:
        if len(expected) in starts:
            count, extent = starts[len(expected)]
            expected += [place] * count
            place += extent
        else:
            expected.append(place)
            place += 1
    positions, delta = qwen.base_positions(10, pictures)
    assert positions.tolist() == [expected] * 3
    assert delta == place - 10


def test_with_all_tokens_positions_are_vllms_own() -> None:
    """The base and each token's row and column make what the untouched model counts."""
    grids, offsets, length = [(4, 6), (2, 2), (8, 2)], [3, 9, 12], 25

    def feature(offset: int, rows: int, columns: int) -> Any:
        grid = {"image_grid_thw": SimpleNamespace(data=torch.tensor([1, rows, columns]))}
        place = SimpleNamespace(offset=offset, length=rows * columns // 4)
        return SimpleNamespace(mm_position=place, data=grid, modality="image")

    features = [feature(offset, *grid) for offset, grid in zip(offsets, grids, strict=True)]
    model = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)), pruned=True)
    stock = Qwen2VLForConditionalGeneration
    model.iter_mm_grid_thw = lambda given: stock.iter_mm_grid_thw(model, given)
    expected, delta = stock.get_mrope_input_positions(model, [0] * length, features)
    found, own = qwen.Qwen.get_mrope_input_positions(model, [0] * length, features[::-1])  # type: ignore[arg-type]
    for offset, (rows, columns) in zip(offsets, grids, strict=True):
        layout = native_layout((rows // 2, columns // 2), None, (1, 1))
        count = layout.tokens_full
        found[1:, offset : offset + count] += qwen.read(qwen.written(layout, None))
    assert torch.equal(found, expected)
    assert own == delta


def test_the_largest_picture_has_the_most_tokens() -> None:
    config = shared("qwen2_vl").config
    geometry = geometry_of(config, LIMITS)
    assert geometry.largest_size == (64, 64)
    assert geometry.limit(Budget.parse(1)) == 64
    assert geometry.limit(Budget.parse(0.2)) == 12
    assert geometry_of(config, (1, 7 * UNIT**2)).largest_size == (56, 8)
    assert geometry_of(config, (1, 401 * UNIT**2)).largest_size == (160, 160)  # 401 is prime, and too narrow
    assert geometry_of(config, LIMITS) is geometry
    with pytest.raises(UnsupportedModelError, match="the fewest and the most pixels"):
        geometry_of(config)
    with pytest.raises(InputsError, match=r"\[\(2000, 9\)\].*aspect ratio"):
        geometry.layout(2000, 9)


def test_limits_are_those_of_the_processor_and_the_options() -> None:
    family, told = family_for("qwen2_vl"), SimpleNamespace(size={"shortest_edge": 100, "longest_edge": 900})
    assert limits_of(family, told, {}) == (100, 900)
    assert limits_of(family, told, {"min_pixels": 300}) == (300, 900)
    assert limits_of(family, told, {"size": {"longest_edge": 400}, "min_pixels": None}) == (100, 400)
    assert limits_of(family, told, {"max_pixels": 800, "images_kwargs": {"max_pixels": 700}}) == (100, 700)
    assert limits_of(family, told, {"max_pixels": 800}, {"size": {"longest_edge": 500}}) == (100, 500)
    assert limits_of(family_for("llava"), None, {}) is None


@pytest.mark.parametrize("name", QWEN)
def test_options_of_the_processor_change_the_tokens(cases: dict[str, Case], name: str) -> None:
    """The server's and the request's; what is kept is a share of what then is there."""
    case, sizes = cases[name], [(64, 64), (90, 31), (20, 20)]
    pictures = [noise(size, seed) for seed, size in enumerate(sizes)]
    made = processor(case, 0.5, mm_processor_kwargs={"max_pixels": 36 * UNIT**2})
    asked: list[dict[str, Any]] = [{}, {"max_pixels": 16 * UNIT**2}, {"size": {"longest_edge": 25 * UNIT**2}}]
    for options in asked:
        if name != "qwen3_vl" and "size" in options:
            continue  # vLLM hands on half a size there, and transformers wants both
        most = options.get("max_pixels") or options.get("size", {}).get("longest_edge") or 36 * UNIT**2
        size = {"shortest_edge": LIMITS[0], "longest_edge": most}
        text = prompt(case, pictures, "b:")
        inputs = case.processor(text=text, images=pictures, return_tensors="pt", images_kwargs={"size": size})
        expected = [entry.tokens_kept for entry in hired.reduce(case.model, inputs, 0.5).selection]
        assert counts(process(made, case, sizes, **options)) == expected, options
    assert made.info.get_image_size_with_most_features() == (48, 48)
    assert made.info.get_mm_max_tokens_per_item(1024, {"image": 1}) == {"image": 18}
    with pytest.raises(BudgetError, match="above the server's budget"):
        process(made, case, sizes, hired_budget=0.6)


@pytest.mark.parametrize("name", QWEN)
def test_videos_are_refused(cases: dict[str, Case], name: str) -> None:
    made = MULTIMODAL_REGISTRY.create_processor(configured(cases[name], {"budget": 0.5}))
    assert made.info.allowed_mm_limits["video"] == 0
    video = np.zeros((2, 16, 16, 3), dtype=np.uint8), {"fps": 1.0, "total_num_frames": 2, "frames_indices": [0, 1]}
    with pytest.raises(VLLMValidationError, match="At most 0 video"):
        made.info.parse_mm_data({"video": [video]})


@pytest.mark.parametrize("name", ["qwen3_vl"])
def test_compiled(engine: Any, cases: dict[str, Case], name: str) -> None:
    """As served on a CPU; and without rows and columns the answers are others."""
    case = cases[name]
    llm = engine(case, {"budget": 0.3}, enforce_eager=False, max_num_batched_tokens=64)
    asked = [(noisy([(64, 64)]), "what is a?"), (noisy([(90, 31), (30, 80)]), "b:"), (noisy([(64, 40)]), "total c?")]
    expected = [answer(case, pictures, question, 0.3)[0] for pictures, question in asked]
    requests = [request(case, pictures, question) for pictures, question in asked]
    assert generate(llm, requests) == expected
    model = model_of(llm)
    assert not model.hired_places.any()

    def lost(layout: Any, rows: Any) -> torch.Tensor:
        return torch.zeros_like(written(layout, rows))

    written, qwen.written = qwen.written, lost
    try:
        clear(llm)
        assert generate(llm, requests) != expected
    finally:
        qwen.written = written


def test_native_geometry_is_for_native_families() -> None:
    assert isinstance(geometry_of(shared("qwen3_vl").config, LIMITS), NativeGeometry)
    assert type(geometry_of(shared("llava").config)).__name__ == "Geometry"


@pytest.mark.parametrize(("given", "message"), [("micro", "--enable-dbo"), ("videos", "--video-pruning-rate")])
def test_what_changes_positions_is_refused(
    cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch, given: str, message: str
) -> None:
    class Stock:
        def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
            built.append(vllm_config)

    class Model(qwen.Qwen, Stock):
        pass

    built: list[Any] = []
    rate = {"video_pruning_rate": 0.5} if given == "videos" else {}
    for budget in (None, {"budget": 0.5}):
        model = configured(cases["qwen2_5_vl"], budget, **rate)
        config = SimpleNamespace(model_config=model, parallel_config=SimpleNamespace(use_ubatching=given == "micro"))
        if budget is None:
            Model(vllm_config=config)
            assert built == [config]
            continue
        with pytest.raises(StartError, match=message):
            Model(vllm_config=config)
