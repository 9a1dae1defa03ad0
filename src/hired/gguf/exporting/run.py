"""The language model of a vision-language model as a GGUF file."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hired.errors import MissingDependencyError, ModelLoadError
from hired.gguf.architectures import TextFacts, facts_of, text_facts
from hired.gguf.exporting.probing import tried
from hired.gguf.exporting.types import Type, type_named
from hired.gguf.exporting.vocabulary import special_ids, vocabulary_of
from hired.gguf.exporting.weights import InMemory, OnDisk
from hired.gguf.exporting.writing import Job, Progress, check_path, write
from hired.greedy import end_tokens, generation_settings
from hired.loading.checkpoints import load_config
from hired.loading.named import source_of
from hired.loading.strangers import quiet, strangers

__all__ = ["Exported", "check_installed", "export", "export_checkpoint"]


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
    kind, target = _checked(type, path, overwrite)
    facts = text_facts(model)
    weights = InMemory(model, facts.tied)
    ends = end_tokens(model) if getattr(model, "generation_config", None) is not None else None
    return _exported(facts, model.config, weights, processor, ends, kind, target, name, progress)


def export_checkpoint(
    model: str,
    path: str | os.PathLike[str],
    type: str = "f16",
    *,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> Exported:
    """As `export`, from a checkpoint's files, without loading the model: one weight is in memory at a time.

    Args:
        model: ``tiny``, a directory written by ``save_pretrained``, or a hub id, of which no file is downloaded that
            holds the vision encoder alone.
        path, type, progress, overwrite: see `export`.
        trust_remote_code: run code that comes with the checkpoint's configuration or tokenizer.

    Raises:
        ModelLoadError: the checkpoint cannot be read or is not whole, or an unknown type.
        UnsupportedModelError: see `export`.
        HiredError: the file cannot be written; nothing is left behind.
        MissingDependencyError: see `export`.
    """
    kind, target = _checked(type, path, overwrite)
    with quiet():
        source = source_of(model)
        config = load_config(source, model, trust_remote_code)
        if getattr(config, "quantization_config", None) is not None:
            raise ModelLoadError(f"{model!r} is quantised: export the checkpoint that it was made from")
        facts = facts_of(config)
        tokenizer = _tokenizer(source, model, trust_remote_code)
        with strangers(model, "read the weights of"):
            weights = OnDisk(source, model, config, facts.tied)
            settings = generation_settings(source)
    ends = end_tokens(SimpleNamespace(generation_config=settings))
    name = None if model == "tiny" else Path(model).name
    return _exported(facts, config, weights, tokenizer, ends, kind, target, name, progress)


def _checked(type: str, path: str | os.PathLike[str], overwrite: bool) -> tuple[Type, Path]:
    """What was asked for, refused before anything is read."""
    kind, target = type_named(type), Path(path)
    check_installed(kind.plain)
    check_path(target, overwrite)
    return kind, target


def _tokenizer(source: str, name: str, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    with strangers(name, "load the tokenizer of"):
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)


def _exported(
    facts: TextFacts,
    config: Any,
    weights: Any,
    processor: Any,
    ends: Sequence[int] | None,
    kind: Type,
    target: Path,
    name: str | None,
    progress: Progress | None,
) -> Exported:
    tokenizer = getattr(processor, "tokenizer", processor)
    special = special_ids(tokenizer, config.get_text_config(), ends or (), facts.vocabulary)
    template = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
    vocabulary = tried(vocabulary_of(tokenizer, special, facts.vocabulary, template), facts, tokenizer)
    size = write(Job(facts, config, weights, vocabulary, kind, name, progress), target)
    held = vocabulary.model if vocabulary.tokens else None
    return Exported(target, size, kind.name, facts.architecture, held, vocabulary.why_not)


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
