"""The README's numbers are those of the committed result files."""

import json
from pathlib import Path

import pytest
from benchmarks import leaderboard_page, operations, speed_table
from benchmarks.table import PAGE, page, table

from hired.methods import METHODS

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks").glob("*.json"))


def test_readme_holds_the_table_of_the_result_file() -> None:
    assert table() in (ROOT / "README.md").read_text()


def test_readme_holds_the_table_of_the_second_model() -> None:
    assert table(ROOT / "benchmarks" / "aya-forms.json") in (ROOT / "README.md").read_text()


def test_readme_holds_the_table_of_the_speed_files() -> None:
    assert speed_table.table() in (ROOT / "README.md").read_text()


def test_results_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page()


def test_page_of_operations_is_up_to_date() -> None:
    assert operations.PAGE.read_text() == operations.page(json.loads(operations.OUT.read_text()))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_result_file_says_how_it_was_made(path: Path) -> None:
    content = json.loads(path.read_text())
    assert content["versions"]["transformers"]
    assert content["machine"]
    assert content["settings"]
    assert path.name in (ROOT / "benchmarks" / "README.md").read_text()


@pytest.mark.parametrize(
    "path", [path for path in RESULTS if "task" in json.loads(path.read_text())], ids=lambda path: path.name
)
def test_rows_are_consistent(path: Path) -> None:
    for row in json.loads(path.read_text())["results"]:
        assert row["exact_match"] == pytest.approx(row["correct"] / row["n"], abs=1e-4)
        assert row["budget"] > 0


BOARD = sorted(leaderboard_page.FOLDER.glob("*/*/*.json"))


def test_readme_holds_the_summary_of_the_leaderboard() -> None:
    assert leaderboard_page.summary() in (ROOT / "README.md").read_text()


def test_leaderboard_page_is_up_to_date() -> None:
    assert leaderboard_page.PAGE.read_text() == leaderboard_page.page()


@pytest.mark.parametrize("path", BOARD, ids=lambda path: "/".join(path.parts[-3:]))
def test_rows_of_the_leaderboard_are_consistent(path: Path) -> None:
    content = json.loads(path.read_text())
    assert (content["model"], content["task"], content["method"]) == (*path.parts[-3:-1], path.stem)
    assert content["versions"]["transformers"]
    assert content["machine"]
    for row in content["results"]:
        assert row["method"] == path.stem
        assert row["n"] >= 1000
        assert row["exact_match"] == pytest.approx(row["correct"] / row["n"], abs=1e-4)
        assert row["low"] <= row["exact_match"] <= row["high"]
    # At equal tokens: a method that meets the budget keeps as many as HiRED.
    theirs = {row["budget"]: row["tokens"] for row in json.loads(path.with_stem("hired").read_text())["results"]}
    for row in content["results"]:
        if getattr(METHODS.get(path.stem), "exact", path.stem != "smaller"):
            assert row["tokens"] == theirs[row["budget"]]
        else:
            assert row["tokens"] <= theirs[row["budget"]]


def test_every_method_is_on_the_leaderboard() -> None:
    for model, task in leaderboard_page.measured():
        assert set(METHODS) <= set(leaderboard_page.results(model, task)), (model, task)
