"""Every class of lmms-eval that is supported runs a small model of its families, under a budget and without."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hired.harness.bases import BASES
from hired.harness.models import HiredChat, HiredSimple
from tests.lmms.conftest import evaluated
from tests.lmms.tasks import forms

FAMILIES = [kind for base in BASES for kind in base.types]
PAGES = 2


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    forms(folder, PAGES, question="what is it?")
    return folder


@pytest.mark.parametrize("kind", [HiredChat, HiredSimple], ids=["chat", "simple"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_runs_under_a_budget(
    family: str, kind: Any, task: Path, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    kept = {}
    for budget in (1, 0.4):
        model = kind(pretrained=str(checkpoint(family)), budget=budget, device="cpu", batch_size=1)
        results = evaluated(model, ["hired_forms"], tmp_path, task)
        assert len(results["samples"]["hired_forms"]) == PAGES
        assert model.counts.pictures == PAGES
        kept[budget] = model.counts
    full, reduced = kept[1], kept[0.4]
    assert full.tokens_full == full.tokens_kept == reduced.tokens_full
    assert 0 < reduced.tokens_kept < reduced.tokens_full
