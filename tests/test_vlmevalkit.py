"""The example for VLMEvalKit, with a stub in the kit's place: a table of models, and a program that asks one."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import hired
from tests.support import models, pictures
from tests.support.enabling import SETTINGS, fresh

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "vlmevalkit.py"
RUN = """\
import argparse, json
from vlmeval.config import supported_VLM

parser = argparse.ArgumentParser()
parser.add_argument("--model")
parser.add_argument("--data")
asked = parser.parse_args()
model = supported_VLM[asked.model](verbose=False)
with open(asked.data, "w") as file:
    json.dump({"model": asked.model, "answer": model.generate()}, file)
"""


class Kit:
    """One of the kit's models: it has a transformers model, and asks it."""

    def __init__(self, verbose: bool = True) -> None:
        self.model = fresh("llava_next")

    def generate(self) -> list[int]:
        inputs = pictures.inputs("llava_next", [[(64, 64)]])
        ids = self.model.generate(**inputs, **SETTINGS)[0, inputs["input_ids"].shape[1] :]
        return list(ids.tolist())


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    kit, config = ModuleType("vlmeval"), ModuleType("vlmeval.config")
    config.supported_VLM = {"tiny": Kit}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vlmeval", kit)
    monkeypatch.setitem(sys.modules, "vlmeval.config", config)
    spec = importlib.util.spec_from_file_location("vlmevalkit_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_kits_program_asks_a_model_under_the_budget(
    example: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "run.py").write_text(RUN)
    told: list[Any] = []
    monkeypatch.setattr(example.atexit, "register", told.append)
    words = ["vlmevalkit.py", str(tmp_path / "run.py"), "tiny", "0.25", "--data", str(tmp_path / "answer.json")]
    monkeypatch.setattr(sys, "argv", words)
    example.main()
    found = json.loads((tmp_path / "answer.json").read_text())
    assert found["model"] == "tiny-hired-0.25"
    reduced = hired.reduce(models.shared("llava_next"), pictures.inputs("llava_next", [[(64, 64)]]), 0.25)
    ids = models.shared("llava_next").generate(**reduced, **SETTINGS)
    assert found["answer"] == ids[0, reduced["input_ids"].shape[1] :].tolist()
    assert len(told) == 1


def test_a_model_that_the_kit_does_not_have(example: Any) -> None:
    with pytest.raises(hired.HiredError, match="no model 'none'"):
        example.register("none", 0.2)
