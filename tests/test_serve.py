"""`hired serve` as far as it goes without vLLM: what it says it will keep, and what it needs. The rest: tests/vllm."""

import copy
import importlib.util
import sys
from typing import Any

import pytest
from benchmarks.serving_table import PAGE, by_arm, median, page, table

import hired
from hired.cli import main
from hired.core.budget import Budget
from hired.errors import BudgetError
from hired.methods import METHODS, HiRED, Scope
from hired.serving.capacity import TEXT, Row, rows
from hired.vllm.geometry import Geometry, geometry_of
from hired.vllm.settings import SERVABLE, Settings, check_method
from tests.support.models import shared
from tests.support.pictures import inputs

SIZES = ((64, 64), (20, 200), (33, 95))


def test_without_vllm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "vllm" else find(name, *a))
    assert main(["serve", "tiny", "--budget", "0.2", "--port", "8000"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("hired: serving needs vLLM")
    assert "pip install '.[vllm]'" in err
    assert err.count("\n") == 1
    assert "vllm" not in sys.modules


@pytest.mark.parametrize("name", ["llava_next", "llava"])
@pytest.mark.parametrize("budget", [1, 0.5, 0.2, 7])
def test_rows_are_what_the_library_keeps(name: str, budget: float) -> None:
    model = shared(name)
    found = rows(Geometry(model.config), Budget.parse(budget), SIZES)
    for size, row in zip(SIZES, found, strict=True):
        [entry] = hired.reduce(model, inputs(name, [[size]]), budget).selection
        assert (row.size, row.full, row.kept) == (size, entry.tokens_full, entry.tokens_kept)


def test_a_budget_that_leaves_nothing_is_told() -> None:
    [row] = rows(Geometry(shared("llava").config), Budget.parse(0.001), SIZES[:1])
    assert row.kept is None
    assert row.gain is None
    assert row.fit(10_000, 16, 4096)[1] == 0


def test_requests_take_whole_blocks_and_long_ones_none() -> None:
    row = Row((672, 672), full=2928, kept=576)
    assert row.gain == (2928 + TEXT) / (576 + TEXT)
    # 100 blocks of 32 tokens: 3056 tokens take 96 of them, 704 take 22.
    assert row.fit(3205, 32, 4096) == (1, 4)
    assert row.fit(3205, 33, 4096) == (1, 4)  # 97 blocks: 93 and 22
    assert row.fit(3205, 32, 3055) == (0, 4)


def test_the_page_holds_the_tables_of_the_result_files() -> None:
    text = PAGE.read_text()
    assert text == page(text)


def test_rounds_of_an_arm_are_one_row_of_medians() -> None:
    measured = [("stock", 1.0, 3.0), ("0.2", 0.2, 8.0), ("0.2", 0.2, 1.0), ("stock", 1.0, 5.0), ("stock", 1.0, 90.0)]
    rows = [
        {"arm": arm, "budget": budget, "visual_tokens": 744, "requests_per_s": rate, "kv_peak": None}
        for arm, budget, rate in measured
    ]
    stock, pruned = map(median, by_arm(rows))
    assert (stock["arm"], stock["requests_per_s"], stock["visual_tokens"]) == ("stock", 5.0, 744)
    assert (pruned["arm"], pruned["requests_per_s"]) == ("0.2", 4.5)
    # What was not measured has no column.
    assert table([stock, pruned]) == [
        "| server | visual tokens | requests/s |",
        "|---|---|---|",
        "| stock vLLM | 744 | 5.00 |",
        "| budget 0.2 | 744 | 4.50 |",
    ]


def test_the_geometry_of_equal_configurations_is_made_once() -> None:
    config = shared("llava").config
    assert geometry_of(config) is geometry_of(copy.deepcopy(config))
    other = copy.deepcopy(config)
    other.vision_config.image_size *= 2
    assert geometry_of(other) is not geometry_of(config)
    assert geometry_of(other).largest.tokens_full == 4 * geometry_of(config).largest.tokens_full


def test_methods_that_cannot_be_served_are_named() -> None:
    assert {"hired", "scope", "visionzip", "divprune"} <= set(SERVABLE)
    assert [check_method(name) for name in SERVABLE] == list(SERVABLE)
    for name in set(METHODS) - set(SERVABLE):
        with pytest.raises(BudgetError, match=f"'{name}' cannot be served: .*; use one of hired, "):
            check_method(name)
    with pytest.raises(BudgetError, match="unknown method 'nonsense'; use one of hired, "):
        check_method("nonsense")


def test_alpha_goes_to_methods_that_take_it() -> None:
    mine, other = Settings(Budget.parse(0.2), 0.3), Settings(Budget.parse(0.2), 0.3, "scope")
    assert (mine.chosen(), mine.takes_alpha) == (HiRED(0.3), True)
    assert (other.chosen(), other.takes_alpha) == (Scope(), False)
