"""Without llama.cpp: one error that says what to install."""

import sys
from pathlib import Path

import pytest

from hired import gguf
from hired.errors import MissingDependencyError


def test_without_llama_cpp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(MissingDependencyError, match=r"pip install llama-cpp-python gguf, or .* its gguf extra"):
        gguf.LLM(tmp_path / "none.gguf")
