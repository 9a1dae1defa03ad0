"""Loading the plugin: what it costs, and on which vLLM."""

import subprocess
import sys
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.model_executor.models import ModelRegistry
from vllm.model_executor.models.llava_next import LlavaNextForConditionalGeneration

from hired.errors import UnsupportedModelError
from hired.vllm import ARCHITECTURES, PREFIX, refusing, register, versions
from hired.vllm.settings import Settings

NEXT = "LlavaNextForConditionalGeneration"


def registered() -> dict[str, str]:
    names = [prefix + each for each in ARCHITECTURES for prefix in ("", PREFIX)]
    return {name: f"{ModelRegistry.models[name].module_name}:{ModelRegistry.models[name].class_name}" for name in names}


def test_vllm_finds_it() -> None:
    [found] = entry_points(group="vllm.general_plugins", name="hired")
    assert found.load() is register


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, hired.vllm; print(*({'vllm', 'torch', 'transformers'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == ""


def test_registering_twice_changes_nothing_and_imports_no_model() -> None:
    code = (
        "import sys; from hired.vllm import register; register(); register();"
        "heavy = ('hired.vllm.models', 'hired.vllm.families', 'vllm.model_executor.models.llava');"
        "print(*[name for name in sys.modules if name.startswith(heavy)])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == ""
    register()
    assert registered() == {prefix + each: ours for each, ours in ARCHITECTURES.items() for prefix in ("", PREFIX)}


@pytest.mark.parametrize(
    ("version", "tested"),
    [
        ("0.30.2", False),
        ("0.31.0", True),
        ("0.32.0+cpu", True),
        ("0.32.1", True),
        ("0.33.0rc1", True),
        ("0.34.0", False),
        ("1.32", False),
    ],
)
def test_range(version: str, tested: bool) -> None:
    assert versions.in_range(version) == tested
    if not tested:
        with pytest.raises(UnsupportedModelError, match=r"outside the range >=0\.31,<0\.34"):
            versions.check(version)


def test_another_vllm_is_refused_only_with_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    monkeypatch.setattr(LlavaNextForConditionalGeneration, "__init__", lambda self, **given: built.append(given))
    monkeypatch.setattr(versions, "_installed", lambda: "0.34.0")
    before = dict(ModelRegistry.models)
    try:
        register()
        assert set(registered().values()) == {
            f"hired.vllm.refusing:{each.split(':')[1]}" for each in ARCHITECTURES.values()
        }
        for name in ARCHITECTURES:
            ModelRegistry.models[name].load_model_cls()
    finally:
        ModelRegistry.models.update(before)
    plain, budgeted = (
        SimpleNamespace(model_config=SimpleNamespace(hf_config=SimpleNamespace(hired=hired)))
        for hired in (None, {"budget": 0.2})
    )
    refusing.HiredLlavaNext(vllm_config=plain)
    assert built == [{"vllm_config": plain, "prefix": ""}]
    with pytest.raises(UnsupportedModelError, match="outside the range"):
        refusing.HiredLlavaNext(vllm_config=budgeted)
    with pytest.raises(UnsupportedModelError, match="outside the range"):
        Settings.of(budgeted.model_config.hf_config)
