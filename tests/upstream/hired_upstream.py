"""A pytest plugin for transformers' own tests: every model of a supported class is enabled when it is made.

`HIRED_BUDGET` is the budget, empty for the untouched models; `HIRED_OUTCOMES` a file for the outcome of every test. It
is imported by its own name, as `tests` is a package of transformers' there.
"""

import functools
import json
import os
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

import hired
from hired.families import FAMILIES

_outcomes: dict[str, str] = {}


def pytest_configure() -> None:
    budget = os.environ.get("HIRED_BUDGET")
    if not budget:
        return
    for family in FAMILIES:
        for model_type in family.model_types:
            _enable_all(getattr(transformers, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[model_type]), float(budget))


def _enable_all(kind: Any, budget: float) -> None:
    """Enables every instance of a class once it is made."""
    make = kind.__init__

    @functools.wraps(make)
    def enabled(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        hired.enable(self, budget)

    kind.__init__ = enabled


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":
        _outcomes[report.nodeid] = "failed" if report.outcome == "failed" else report.outcome


def pytest_sessionfinish(session: Any) -> None:
    target = os.environ.get("HIRED_OUTCOMES")
    if target and not hasattr(session.config, "workerinput"):
        Path(target).write_text(json.dumps(_outcomes), encoding="utf-8")
