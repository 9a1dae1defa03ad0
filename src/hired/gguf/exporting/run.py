"""The language model of a vision-language model as a GGUF file."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hired.errors import MissingDependencyError
from hired.gguf.architectures import text_facts
from hired.gguf.exporting.types import type_named
from hired.gguf.exporting.vocabulary import Vocabulary
from hired.gguf.exporting.weights import InMemory
from hired.gguf.exporting.writing import Job, Progress, check_path, write

__all__ = ["Exported", "export"]


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: where.
        size: bytes.
        type: of the weights.
        architecture: what llama.cpp calls the language model.
        vocabulary: llama.cpp's name for the kind of tokenizer in it, None without.
        why_not: why it has no vocabulary, None where it has one.
    """

    path: Path
    size: int
    type: str
    architecture: str
    vocabulary: str | None
    why_not: str | None


def export(
    model: Any,
    processor: Any,
    path: str | os.PathLike[str],
    type: str = "f16",
    *,
    progress: Progress | None = None,
    overwrite: bool = False,
    name: str | None = None,
) -> Exported:
    """Writes the language model of a model as a GGUF file, for llama.cpp.

    Weights are read and written one at a time. The file is written under another name and then renamed.

    Args:
        model: a vision-language model, or a language model with its head.
        processor: its processor or tokenizer, or None for a file without vocabulary.
        path: the file, ending in ``.gguf``.
        type: of the weights, a name of `hired.gguf.exporting.TYPES`; vectors stay float32.
        progress: called with what is done ("writing", "quantizing") and how many bytes of how many are.
        overwrite: replace a file that is there.
        name: the file's `general.name`.

    Returns:
        What was written.

    Raises:
        UnsupportedModelError: llama.cpp does not run this language model as transformers does.
        HiredError: the file cannot be written; nothing is left behind.
        ModelLoadError: an unknown type.
        MissingDependencyError: gguf is not installed, or llama-cpp-python for a type that it makes.
    """
    kind, target = type_named(type), Path(path)
    check_installed(kind.plain)
    check_path(target, overwrite)
    facts = text_facts(model)
    vocabulary = Vocabulary(why_not="no tokenizer was given")
    job = Job(facts, model.config, InMemory(model, facts.tied), vocabulary, kind, name, progress)
    return Exported(target, write(job, target), kind.name, facts.architecture, None, vocabulary.why_not)


def check_installed(plain: bool) -> None:
    """Refuses to begin where what writes the file is not installed.

    Args:
        plain: the type of weights needs no llama.cpp.

    Raises:
        MissingDependencyError: it is not.
    """
    for name, package in (("gguf", "gguf"), *(() if plain else (("llama_cpp", "llama-cpp-python"),))):
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f"writing this file needs {package}: install hired-vlm with its gguf extra (in a checkout:"
                " pip install '.[gguf]')"
            )
