"""The model `hired` of lmms-eval: what it answers, what it counts, and what it refuses."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms_eval.models import get_model

import hired
from hired import greedy, prompts
from hired.errors import (
    BudgetError,
    HiredError,
    InputsError,
    MissingDependencyError,
    ModelLoadError,
    UnsupportedModelError,
)
from hired.evaluation import Settings
from hired.evaluation.run import evaluate
from hired.evaluation.samples import Sample
from hired.harness import bases
from hired.harness.models import HiredChat, HiredSimple
from hired.tiny import WEIGHTS
from tests.lmms.conftest import evaluated, template
from tests.lmms.tasks import forms

PAGES = 24
TINY = {"pretrained": "tiny", "dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Sample]]:
    folder = tmp_path_factory.mktemp("task")
    return folder, forms(folder, PAGES)


@pytest.mark.parametrize("budget", [1, 0.2])
def test_pages_are_answered_as_by_hired_eval_to_the_picture(
    budget: float, task: tuple[Path, list[Sample]], tmp_path: Path
) -> None:
    folder, pages = task
    model = HiredChat(**TINY, budget=budget)
    results = evaluated(model, ["hired_forms"], tmp_path, folder)
    answers = [
        each["filtered_resps"][0].strip()
        for each in sorted(results["samples"]["hired_forms"], key=lambda each: each["doc_id"])
    ]
    tiny, processor = hired.load_tiny()
    tokens = 0
    for page, answer in zip(pages, answers, strict=True):
        inputs = prompts.inputs(tiny, processor, [prompts.prompt(processor, page.question)], [page.image])
        reduced = hired.reduce(tiny, inputs, budget)
        tokens += reduced.selection[0].tokens_kept
        ids = greedy.generate(tiny, processor, reduced, 8)[0, reduced["input_ids"].shape[1] :]
        assert answer == processor.decode(ids, skip_special_tokens=True).strip()
    [row] = evaluate(tiny, processor, Settings(limit=PAGES, budgets=(budget,), methods=("hired",)), prompts.prompt)
    assert sum(answer == page.answer for page, answer in zip(pages, answers, strict=True)) == row["correct"]
    assert results["results"]["hired_forms"]["exact_match,none"] == pytest.approx(row["correct"] / PAGES)
    assert (model.counts.pictures, model.counts.tokens_kept) == (PAGES, tokens)
    assert results["throughput"]["avg_hired_visual_tokens_kept"] == pytest.approx(row["tokens"], abs=0.01)
    assert results["throughput"]["avg_hired_pictures"] == PAGES


def test_the_command_line_of_lmms_eval_finds_the_model_and_an_error_gives_no_score(
    task: tuple[Path, list[Sample]], tmp_path: Path
) -> None:
    def call(arguments: str) -> tuple[str, list[Path]]:
        words = ["--model", "hired", "--model_args", arguments, "--tasks", "hired_forms", "--device", "cpu"]
        words += ["--include_path", str(task[0]), "--limit", "3", "--output_path", str(tmp_path)]
        done = subprocess.run(
            [sys.executable, "-m", "lmms_eval", *words], capture_output=True, text=True, env={**os.environ}, check=False
        )
        return done.stdout + done.stderr, sorted(tmp_path.rglob("*_results.json"))

    said, files = call("pretrained=tiny,dtype=float32,budget=0.2,newlines=keep")
    assert len(files) == 1, said
    assert json.loads(files[0].read_text())["throughput"]["avg_hired_pictures"] == 3
    files[0].unlink()
    said, files = call("pretrained=tiny,dtype=float32,budget=0.001")
    assert "leaves no token" in said
    assert not files


@pytest.mark.parametrize(("flag", "module"), [(False, "chat"), (True, "simple")])
def test_the_base_is_lmms_evals_class_for_the_checkpoint(flag: bool, module: str) -> None:
    model = get_model("hired", force_simple=flag).create_from_arg_string(
        "pretrained=tiny,budget=0.2", {"batch_size": 1, "max_batch_size": None, "device": "cpu"}
    )
    assert model.base_class == f"lmms_eval.models.{module}.llava_hf.LlavaHf"
    assert model.is_simple is flag
    assert model.tokenizer is model._base.tokenizer
    assert model.device == torch.device("cpu")
    model.keeps_model = True
    model.clean()
    assert model.model.generate
    model.keeps_model = False
    inner = model.model
    model.clean()
    assert "generate" not in vars(inner)
    assert not hasattr(model._base, "_model")


@pytest.mark.parametrize("budget", [1, 0.2])
def test_what_generate_raises_ends_the_run(budget: float, task: tuple[Path, list[Sample]], tmp_path: Path) -> None:
    model = HiredChat(**TINY, budget=budget)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel for this")

    model.model.model.language_model.forward = fail
    with pytest.raises(HiredError, match=r"llava_hf failed, and no score is given: RuntimeError: no kernel for this"):
        evaluated(model, ["hired_forms"], tmp_path, task[0], limit=2)


def test_our_own_errors_come_as_they_are(task: tuple[Path, list[Sample]], tmp_path: Path) -> None:
    model = HiredChat(**TINY, budget=0.2)
    model.model.config.image_token_id = 0  # no placeholder is found
    with pytest.raises(InputsError):
        evaluated(model, ["hired_forms"], tmp_path, task[0], limit=2)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, BudgetError, "name a budget, such as budget=0.2"),
        ({"budget": "much"}, BudgetError, "budget must be a number"),
        ({"budget": 0}, BudgetError, "above 0"),
        ({"budget": 0.2, "method": "best"}, BudgetError, "best"),
        ({"budget": 0.2, "alpha": 2}, BudgetError, "alpha"),
        ({"budget": 0.2, "encoder_budget": 0.5}, BudgetError, "encoder_budget"),
        ({"budget": 0.2, "alhpa": 0.5}, HiredError, r"model_args: no alhpa in HiRED \(budget, .*llava_hf \(pretrained"),
        ({"budget": 0.2, "base": "hired"}, HiredError, "no model class 'hired'"),
        ({"budget": 0.2, "base": "none"}, HiredError, "no model class 'none'"),
        ({"budget": 0.2, "device": "cuda:99"}, ModelLoadError, "cuda:99"),
        ({"budget": 0.2, "pretrained": "no/where/at/all"}, ModelLoadError, "no/where"),
        ({"budget": 0.2, "max_batch_size": 4}, HiredError, "max_batch_size"),
    ],
)
def test_wrong_settings_are_told_before_the_checkpoint_is_loaded(
    given: dict[str, Any], error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlavaNextForConditionalGeneration

    monkeypatch.setattr(LlavaNextForConditionalGeneration, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(error, match=words):
        HiredChat(**{**TINY, **given})


def test_arguments_that_are_given_twice_or_not_at_all() -> None:
    with pytest.raises(HiredError, match="device in model_args and as an option"):
        HiredChat.create_from_arg_string("pretrained=tiny,budget=1,device=cpu", {"device": "cpu"})
    with pytest.raises(HiredError, match="name a checkpoint"):
        HiredChat.create_from_arg_string("budget=0.2", {})


def test_log_likelihoods_are_those_of_the_untouched_model_alone() -> None:
    with pytest.raises(HiredError, match="log-likelihood tasks"):
        HiredChat(**TINY, budget=0.2).loglikelihood([])
    assert HiredChat(**TINY, budget=1).loglikelihood([]) == []


def test_a_family_without_a_tested_class_and_one_that_is_named(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnsupportedModelError, match=r"'idefics3'.*tested: llava_next, .*base=\.\.\."):
        HiredChat(pretrained=str(checkpoint("idefics3")), budget=0.2, device="cpu")
    # Something that the class imports is missing, as decord is where only lmms-eval was installed.
    monkeypatch.setitem(sys.modules, "lmms_eval.models.simple.llava_hf", None)
    monkeypatch.delitem(sys.modules, "lmms_eval.models.chat.llava_hf", raising=False)
    with pytest.raises(MissingDependencyError, match=r"llava_hf cannot be imported \(.*lmms extra"):
        HiredChat(**TINY, budget=0.2)


def test_code_that_comes_with_a_checkpoint_is_not_run(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "with-code"
    shutil.copytree(checkpoint("lfm2_vl"), folder)
    held = json.loads((folder / "processor_config.json").read_text())
    held["auto_map"] = {"AutoProcessor": "theirs.Processor"}
    (folder / "processor_config.json").write_text(json.dumps(held))
    (folder / "theirs.py").write_text("raise SystemExit('was run')")
    with pytest.raises(ModelLoadError, match="brings code of its own"):
        HiredChat(pretrained=str(folder), budget=0.2, device="cpu")


@pytest.mark.parametrize("version", ["0.6.1", "0.7.2", "0.8.0", "1.0"])
def test_another_lmms_eval_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases.metadata, "version", lambda name: version)
    with pytest.raises(UnsupportedModelError, match=rf"lmms-eval {version} is outside"):
        HiredChat(**TINY, budget=0.2)


def test_a_template_that_loses_plain_text_is_replaced_by_vicunas_or_refused(tmp_path: Path) -> None:
    parts_only = template("<image>").replace(
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}", ""
    )
    parts_only = parts_only.replace("{% endfor %}{% endif %}{% endfor %}", "{% endfor %}{% endfor %}")
    folder = tmp_path / "parts"
    shutil.copytree(WEIGHTS, folder)
    (folder / "chat_template.jinja").write_text(parts_only)
    model = HiredSimple(**{**TINY, "pretrained": str(folder)}, budget=0.2)
    assert "artificial intelligence assistant" in model._base.chat_template
    assert HiredSimple(**TINY, budget=0.2)._base.chat_template is None
    # A class of chats asks the processor, which is given parts.
    assert HiredChat(**{**TINY, "pretrained": str(folder)}, budget=0.2)._base.chat_template is None
