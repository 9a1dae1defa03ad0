"""What the tests of GGUF files share. Where llama.cpp is missing their modules are skipped (make test-gguf)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The language model of a tiny model as a file."""
    from hired import gguf
    from tests.gguf import support

    root, made = tmp_path_factory.mktemp("gguf"), {}

    def export(name: str, type: str = "f32") -> Path:
        if (name, type) not in made:
            made[name, type] = root / f"{name}-{type}.gguf"
            gguf.export(support.model(name), None, made[name, type], type)
        return made[name, type]

    return export


@pytest.fixture
def engine(exported: Callable[..., Path]) -> Any:
    """Makes LLMs that compute in float32, and closes them."""
    from hired import gguf

    made = []

    def make(name: str, **settings: Any) -> Any:
        made.append(gguf.LLM(exported(name), **{"threads": 1, "exact": True, **settings}))
        return made[-1]

    yield make
    for llm in made:
        llm.close()
