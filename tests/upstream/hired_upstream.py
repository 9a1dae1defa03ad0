"""A pytest plugin for transformers' own tests: every model of a supported class is enabled when it is made.

`HIRED_BUDGET` is the budget, empty for the untouched models; `HIRED_OUTCOMES` a file for the outcome of every test. It
is imported by its own name, as `tests` is a package of transformers' there.
"""

import functools
import importlib
import json
import os
import random
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import transformers  # before transformers' conftest, which puts the checkout's own first on the path
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

import hired
from hired.families import FAMILIES

DESELECTED: dict[str, str] = {
    "IntegrationTest": "real checkpoints, from the network",
}
"""Parts of the ids of tests that are not run, and why. What fails untouched needs no line here: it is not compared."""

_NEAR = (("transformers.integrations.tensor_parallel", "_get_parameter_tp_plan"),)
"""Private names that the tests of a version near the installed one import. The few that use them fail untouched too."""

_PACKAGE = Path(hired.__file__).resolve().parent
_STEP = re.compile(r"\S+\.py:\d+: in ")

_outcomes: dict[str, dict[str, Any]] = {}
_made = 0


def pytest_configure(config: pytest.Config) -> None:
    if config.rootpath in Path(transformers.__file__).resolve().parents:
        raise pytest.UsageError(f"the tests must meet the installed transformers, not the one in {config.rootpath}")
    transformers.utils.direct_transformers_import = lambda *_: transformers  # the tests ask for the checkout's own
    for module, name in _NEAR:
        if not hasattr(importlib.import_module(module), name):
            setattr(sys.modules[module], name, None)
    budget = os.environ.get("HIRED_BUDGET")
    if budget:
        for family in FAMILIES:
            for model_type in family.model_types:
                name = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[model_type]
                _enable_all(getattr(transformers, name), float(budget))


def _enable_all(kind: Any, budget: float) -> None:
    """Enables every instance of a class once it is made, by its constructor or by `from_pretrained`."""
    make = kind.__init__

    @functools.wraps(make)
    def enabled(self: Any, *args: Any, **kwargs: Any) -> None:
        global _made
        make(self, *args, **kwargs)
        if type(self) is kind or type(self).__init__ is enabled:  # a subclass's own constructor is not done yet
            hired.enable(self, budget)
            _made += 1

    kind.__init__ = enabled


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if any(part in item.nodeid for part in DESELECTED)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Seeds each test by its id, so that both runs draw the same, and notes how many models it enabled."""
    before = _made
    seed = zlib.crc32(item.nodeid.encode())
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    common: Any = sys.modules.get("tests.test_modeling_common")
    if common is not None:
        common.global_rng.seed(seed)  # of which its random inputs come
    try:
        return (yield)
    finally:
        item.user_properties.append(("hired_made", _made - before))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    known = _outcomes.get(report.nodeid, {})
    if report.when != "call" and report.outcome == "passed":
        return
    if known.get("outcome") == "failed":  # an earlier subtest or phase
        return
    _outcomes[report.nodeid] = {
        "outcome": report.outcome,
        "made": dict(report.user_properties).get("hired_made", 0),
        **(_told(report) if report.outcome == "failed" else {}),
    }


def _told(report: pytest.TestReport) -> dict[str, str]:
    """The last line of a failed test's error, and the last line of ours that it went through (`--tb=short`)."""
    lines = report.longreprtext.splitlines()
    errors = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")] or lines or ["?"]
    steps = [line.split(": in ")[0] for line in lines if _STEP.match(line)]
    ours = [step for step in steps if _PACKAGE in Path(step).resolve().parents]
    return {"error": errors[0][:300], "line": os.path.relpath(ours[-1], _PACKAGE.parent) if ours else ""}


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = os.environ.get("HIRED_OUTCOMES")
    if target and not hasattr(session.config, "workerinput"):
        Path(target).write_text(json.dumps(_outcomes), encoding="utf-8")
