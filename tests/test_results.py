"""The README's numbers are those of the committed result files."""

import json
from pathlib import Path

import pytest
from benchmarks import speed_table
from benchmarks.table import PAGE, page, table

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
