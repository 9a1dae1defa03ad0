"""`hired reproduce`: the paper's benchmarks by lmms-eval's definitions, on documents made here."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hired.errors import HiredError
from hired.harness.models import HiredSimple
from hired.harness.paper import BENCHMARKS, PUBLISHED
from hired.harness.report import rows, table
from hired.harness.run import reproduce
from hired.harness.settings import Settings
from tests.lmms.conftest import evaluated, tasks_of
from tests.lmms.tasks import TEXTS, benchmarks, forms

SETTINGS = Settings(model="tiny", budgets=(1, 0.2), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Documents of which the untouched model is right wherever any text may be: its answers are their truths."""
    folder = tmp_path_factory.mktemp("data")
    first = benchmarks(folder / "first")
    model = HiredSimple("tiny", budget=1, dtype="float32", device="cpu")
    made = tasks_of(None).load_task_or_group([{"task": task, **first[task]} for task in TEXTS])
    answered = evaluated(model, list(made.values()), folder / "out")["samples"]
    truths = {
        task: [each["filtered_resps"][0] for each in sorted(answered[task], key=lambda each: each["doc_id"])]
        for task in TEXTS
    }
    return benchmarks(folder / "second", truths)


def test_the_facts_of_the_benchmarks_are_lmms_evals() -> None:
    from lmms_eval.utils import load_yaml_config

    for task, known in BENCHMARKS.items():
        held = load_yaml_config(tasks_of(None).task_index[task]["yaml_path"], mode="full")
        assert (held["dataset_path"], held.get("dataset_name")) == known.data, task
        assert bool(held.get("dataset_kwargs", {}).get("token")) == known.login, task
        assert known.metric in [metric["metric"] for metric in held["metric_list"]], task
        assert held["output_type"] == "generate_until", task


def test_all_eight_give_their_numbers_and_go_on_after_an_interruption(
    definitions: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "out"

    def interrupt(event: Mapping[str, Any]) -> None:
        if event["kind"] == "task" and event["task"] == "ocrbench":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(SETTINGS, folder, interrupt, definitions)
    kept = json.loads((folder / "results.json").read_text())["runs"]
    assert [(run["task"], run["budget"]) for run in kept] == [(task, 1) for task in list(BENCHMARKS)[:4]]

    ran: list[str] = []
    papers, runs = reproduce(
        SETTINGS, folder, lambda event: ran.append(event["task"]) if event["kind"] == "task" else None, definitions
    )
    assert ran == [*list(BENCHMARKS)[4:], *BENCHMARKS]
    assert runs[:4] == kept
    assert json.loads((folder / "results.json").read_text())["runs"] == runs
    by_key = {(run["task"], run["budget"]): run for run in runs}
    for task, known in BENCHMARKS.items():
        for budget in (1, 0.2):
            run = by_key[task, budget]
            assert (run["metric"], run["n"], run["pictures"]) == (known.metric, 4, 4)
            assert 0 <= run["score"] <= 2000
            assert run["base_class"] == "lmms_eval.models.simple.llava_hf.LlavaHf"
        full, reduced = by_key[task, 1], by_key[task, 0.2]
        assert full["visual_tokens_kept"] == full["visual_tokens"] == reduced["visual_tokens"]
        assert 0.15 < reduced["visual_tokens_kept"] / full["visual_tokens"] < 0.21
    for task in TEXTS:
        assert by_key[task, 1]["score"] == pytest.approx(4 if task == "ocrbench" else 100), task
    # The counter of OCRBench's module would have added the second budget to the first.
    assert all(by_key["ocrbench", budget]["score"] <= 4 for budget in (1, 0.2))
    assert not papers
    found = rows(SETTINGS, papers, runs)
    assert [row["paper"] for row in found] == [PUBLISHED[budget][task] for budget in (1, 0.2) for task in BENCHMARKS]
    assert all(row["difference"] is None for row in found)
    assert len(table(found)[1]) == 4  # the paper's line and ours, twice

    # All of it is there: nothing is looked for, loaded or run.
    again = reproduce(SETTINGS, folder, lambda event: pytest.fail("ran") if event["kind"] == "task" else None)
    assert again == (papers, runs)


def test_the_command_runs_a_task_of_ones_own(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    forms(tmp_path / "task", 4)
    out = tmp_path / "out"
    asked = ("--model", "tiny", "--dtype", "float32", "--device", "cpu", "--tasks", "hired_forms", "--budgets", "0.2")
    more = ("--include-path", tmp_path / "task", "-o", out, "--prompts", "chat", "--limit", 3)
    code, said, told = run("reproduce", *asked, *more)
    assert code == 0, told
    assert "hired_forms at 0.2: exact_match" in told
    assert "lmms_eval.models.chat.llava_hf.LlavaHf" in said
    assert (out / "results.png").read_bytes().startswith(b"\x89PNG")
    code, said, _ = run("reproduce", *asked, *more, "--json")
    assert code == 0
    [row] = json.loads(said)["rows"]
    assert (row["task"], row["budget"], row["paper"], row["difference"]) == ("hired_forms", 0.2, None, None)
    code, _, told = run("reproduce", *asked, *more[:-1], 4)
    assert code == 2
    assert "results of other settings (limit=3)" in told


def test_a_task_that_lmms_eval_does_not_know_and_a_failing_run_are_told(tmp_path: Path) -> None:
    settings = Settings(model="tiny", budgets=(0.2,), tasks=("no_such_task",), device="cpu")
    with pytest.raises(HiredError, match=r"budget 0\.2: lmms-eval has no task 'no_such_task'") as told:
        reproduce(settings, tmp_path)
    assert str(tmp_path / "log.txt") in str(told.value)
    forms(tmp_path / "task", 2)
    settings = Settings(
        model="tiny", budgets=(0.0001,), tasks=("hired_forms",), device="cpu", include=str(tmp_path / "task")
    )
    with pytest.raises(HiredError, match="leaves no token"):
        reproduce(settings, tmp_path / "other")


def test_what_is_missing_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(HiredError, match=r"^before anything is measured, this is missing: the model \(.*; the data of"):
        reproduce(Settings(), tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(HiredError, match=r"a hub login, for which lmms-eval asks in vqav2_val, .*TOKEN.*textvqa_val"):
        reproduce(Settings(model="tiny"), tmp_path)
    assert not any(tmp_path.iterdir())
