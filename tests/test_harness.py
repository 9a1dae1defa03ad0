"""The lmms-eval plug-in and `hired reproduce`, as far as they go without lmms-eval. The rest: tests/lmms."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hired.errors import BudgetError, HiredError, InputsError, MissingDependencyError, UnsupportedModelError
from hired.families import family_for
from hired.harness.bases import BASES, base_of
from hired.harness.paper import BENCHMARKS, MODEL, PUBLISHED, is_the_papers, score
from hired.harness.report import notes, plot, rows, table
from hired.harness.run import Folder, reproduce
from hired.harness.settings import Settings
from hired.harness.watching import watched
from tests.support.models import shared


def result(task: str, budget: float, value: float) -> dict[str, Any]:
    """A run, as the worker tells of it."""
    return {
        "task": task,
        "budget": budget,
        "score": value,
        "visual_tokens_kept": 2880 * budget,
        "base_class": "lmms_eval.models.simple.llava_hf.LlavaHf",
    }


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, hired.harness; print([name for name in ('torch', 'lmms_eval') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_lmms_eval_finds_the_plugin_by_its_entry_point() -> None:
    [entry] = [each for each in metadata.entry_points(group="lmms_eval.models") if each.name == "hired"]
    assert entry.value == "hired.harness:manifest"


def test_bases_are_for_families_that_are_known() -> None:
    kinds = [kind for base in BASES for kind in base.types]
    assert len(set(kinds)) == len(kinds)
    for kind in kinds:
        assert family_for(kind)
        assert kind in base_of(kind, "x").types
    with pytest.raises(UnsupportedModelError, match=r"x is a 'gemma3', .*base="):
        base_of("gemma3", "x")


def test_table_one_is_whole() -> None:
    assert all(row.keys() == BENCHMARKS.keys() for row in PUBLISHED.values())
    assert [PUBLISHED[0.2]["docvqa_val"], PUBLISHED[1]["mme"], PUBLISHED[0.4]["chartqa"]] == [60.8, 1519, 46.5]
    assert Settings().tasks == tuple(BENCHMARKS)
    assert set(Settings().budgets) == set(PUBLISHED)


def test_scores_are_in_the_papers_units() -> None:
    assert score("docvqa_val", {"alias": "x", "anls,none": 0.608, "anls_stderr,none": 0.1}) == ("anls", 60.8)
    assert score("ocrbench", {"ocrbench_accuracy,none": 0.475}) == ("ocrbench_accuracy", 475)
    mme = {"mme_cognition_score,none": 300.0, "mme_perception_score,none": 1483.0}
    assert score("mme", mme) == ("mme_perception_score", 1483)
    assert score("other", {"acc_stderr,none": 0.1, "acc,none": 0.5}) == ("acc", 0.5)
    with pytest.raises(ValueError, match="no number for pope"):
        score("pope", {"pope_f1_score,none": 0.9})


def test_the_table_sets_the_paper_beside_what_was_measured() -> None:
    settings = Settings(tasks=("docvqa_val", "ocrbench"), budgets=(1, 0.2))
    runs = [result("docvqa_val", 1, 73.9), result("ocrbench", 1, 502), result("docvqa_val", 0.2, 61.84)]
    runs.append(result("ocrbench", 0.2, 470))
    columns, cells = table(rows(settings, True, runs))
    assert columns == ["budget", "", "DocVQA", "OCRBench"]
    assert cells == [
        ["100%", "paper", "73.4", "501"],
        ["", "measured", "73.9", "502"],
        ["", "difference", "+0.5", "+1"],
        ["20%", "paper", "60.8", "475"],
        ["", "measured", "61.8", "470"],
        ["", "difference", "+1.0", "-5"],
    ]
    assert "Asked by lmms-eval's lmms_eval.models.simple.llava_hf.LlavaHf." in notes(settings, True, runs)
    assert "by budget: 1: 2,880, 0.2: 576." in notes(settings, True, runs)[1]


def test_what_cannot_be_compared_is_not() -> None:
    runs = [result("docvqa_val", 0.2, 61.8), result("ocrbench", 0.2, 4)]
    other = rows(Settings(), False, runs)  # another model
    assert [row["difference"] for row in other] == [None, None]
    assert "another model" in notes(Settings(), False, runs)[-1]
    part = rows(Settings(limit=10), True, runs)  # ten documents cannot have 475 right answers
    assert [row["difference"] for row in part] == [1.0, None]
    assert "no reproduction" in notes(Settings(limit=10), True, runs)[-1]
    ours = rows(Settings(method="glean"), True, [*runs, result("docvqa_val", 1, 73.4)])
    assert [row["paper"] for row in ours] == [None, None, 73.4]
    assert "'glean'" in notes(Settings(method="glean"), True, runs)[-1]


def test_the_plot_has_a_panel_a_task(tmp_path: Path) -> None:
    runs = [result(task, budget, 50) for budget in (1, 0.2, 576) for task in (*BENCHMARKS, "my_task")]
    plot(rows(Settings(), True, runs), tmp_path / "plot.svg", "title")
    words = (tmp_path / "plot.svg").read_text()
    assert words.count("<svg") == 1
    assert len(words) > 10_000


def test_the_papers_model_is_known_by_its_shape() -> None:
    from transformers import LlavaNextConfig

    text = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 32064}
    assert is_the_papers(LlavaNextConfig(text_config=text))
    assert not is_the_papers(LlavaNextConfig(text_config={**text, "vocab_size": 128_320}))
    assert not is_the_papers(LlavaNextConfig(text_config={**text, "num_hidden_layers": 40}))
    assert not is_the_papers(shared("llava").config)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budgets": ()}, "at least one budget"),
        ({"budgets": (0,)}, "above 0"),
        ({"budgets": ("x",)}, "must be a number"),
        ({"limit": 0}, "limit"),
        ({"method": "x"}, "x"),
        ({"alpha": 2}, "alpha"),
        ({"newlines": "x"}, "newlines='x'"),
        ({"prompts": "x"}, "prompts='x'"),
        ({"tasks": ()}, "at least one task"),
        ({"tasks": ("pope", "pope")}, "none twice"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(HiredError, match=words):
        reproduce(Settings(**settings), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_lmms_eval_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "lmms_eval" else find(name, *a))
    code, out, told = run("reproduce", "--model", "tiny", "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert told.startswith("hired: the benchmarks need lmms-eval: install hired-vlm with its lmms extra")
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(MissingDependencyError):
        reproduce(Settings(model="tiny"), tmp_path / "out")


def test_results_that_are_there_need_nothing_else(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    settings = Settings(tasks=("docvqa_val",), budgets=(0.2,))
    done = [result("docvqa_val", 0.2, 61.8)]
    Folder(tmp_path).write(settings, True, done)
    assert reproduce(settings, tmp_path) == (True, done)
    code, out, told = run("reproduce", "--tasks", "docvqa_val", "--budgets", "0.2", "-o", tmp_path)
    assert (code, told) == (0, "")
    assert "+1.0" in out
    assert MODEL in out
    code, out, _ = run("reproduce", "--tasks", "docvqa_val", "--budgets", "0.2", "-o", tmp_path, "--json")
    assert json.loads(out)["rows"][0]["difference"] == 1.0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"runs": 3, "settings": {}, "papers_model": true}'])
def test_a_file_of_something_else_is_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(HiredError, match="holds no results of hired reproduce"):
        reproduce(Settings(), tmp_path)
    assert (tmp_path / "results.json").read_text() == text


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    Folder(tmp_path).write(Settings(limit=5), True, [result("pope", 1, 80)])
    with pytest.raises(HiredError, match=r"results of other settings \(limit=5\)"):
        reproduce(Settings(), tmp_path)


def test_a_watched_generate_ends_the_block_past_handlers_of_exceptions() -> None:
    class Model:
        def generate(self, value: int, *, fail: Any = None) -> int:
            if fail is not None:
                raise fail
            return value

    model, seen = Model(), []
    with watched(model, "llava_hf", seen.append):
        assert model.generate(3) == 3
        assert model.generate(4, fail=None) == 4
    assert seen == [{}, {"fail": None}]
    assert vars(model) == {}

    def swallowing(error: Exception) -> None:
        with watched(model, "llava_hf", seen.append):
            try:
                model.generate(3, fail=error)
            except Exception:
                pytest.fail("the harness could have scored an empty answer")

    with pytest.raises(HiredError, match="llava_hf failed, and no score is given: ValueError: bad"):
        swallowing(ValueError("bad"))
    with pytest.raises(InputsError, match=r"^ours$"):
        swallowing(InputsError("ours"))
    assert vars(model) == {}


def test_a_template_that_loses_the_question_of_another_language_model_is_refused() -> None:
    from hired.harness.prompts import check_template

    def base(words: str) -> Any:
        tokenizer = SimpleNamespace(chat_template="{{ }}", apply_chat_template=lambda *_, **__: words)
        return SimpleNamespace(chat_template=None, tokenizer=tokenizer)

    text = SimpleNamespace(model_type="llama", vocab_size=128_320)
    config = SimpleNamespace(get_text_config=lambda: text)
    with pytest.raises(HiredError, match="--prompts chat"):
        check_template(base("USER: ASSISTANT:"), config, "llava_hf")
    check_template(base("<image>\nWhich one?"), config, "llava_hf")
    check_template(base("USER: ASSISTANT:"), config, "qwen2_vl")


def test_budgets_of_text_are_refused() -> None:
    with pytest.raises(BudgetError):
        Settings(budgets=("much",)).check()
