"""Language models as GGUF files, run by llama.cpp on the kept tokens. Nothing is imported until it is used."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hired.gguf.exporting import export
    from hired.gguf.llm import LLM
    from hired.gguf.tower import load_tower
    from hired.gguf.turns import follow_up

__all__ = ["LLM", "export", "follow_up", "load_tower"]

_LAZY = {
    "LLM": "hired.gguf.llm",
    "export": "hired.gguf.exporting",
    "follow_up": "hired.gguf.turns",
    "load_tower": "hired.gguf.tower",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'hired.gguf' has no attribute {name!r}")
