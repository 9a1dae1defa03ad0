"""Whether llama.cpp makes the same tokens of a text as the checkpoint's tokenizer."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from hired.gguf.architectures import TextFacts
from hired.gguf.exporting.header import write_header
from hired.gguf.exporting.vocabulary import Vocabulary

__all__ = ["tried"]

_TEXTS = (
    "Hello, world! It's 3 o'clock; we'll pay $1,234.56 (VAT 19%).",
    "  two spaces,\ttab\n\nlines  \n   indented = f(x) ** 2 // 3;\r\n",
    "UPPER lower CamelCase snake_case I'VE DON'T they're",
    "".join(map(chr, range(32, 127))),
    "déjà vu, Straße, Ελληνικά, русский язык, עברית, العربية ١٢٣, हिन्दी, ไทย",
    "漢字とかな、中文标点。한국어 ½ ² Ⅷ",
    "emoji 🙂🏳️‍🌈👩‍👩‍👧 math ∑∫√ → ≤ • … “quoted” ‘q’",
    "",
    " ",
    "\n",
    "a",
    " leading",
    "trailing ",
    "https://example.org/a/b?c=d&e=%20#f",
    "0123456789 10000000 3.14159",
)
"""Texts with what tokenizers treat in unlike ways; composed characters, as llama.cpp does not normalise."""


def tried(vocabulary: Vocabulary, facts: TextFacts, tokenizer: Any) -> Vocabulary:
    """The vocabulary, or the same without tokens where llama.cpp makes others of some text.

    Where llama.cpp is not installed, only what is sure without a trial is left.

    Args:
        vocabulary: what the file would say.
        facts: of the language model.
        tokenizer: the checkpoint's.
    """
    if not vocabulary.tokens:
        return vocabulary
    if importlib.util.find_spec("llama_cpp") is None:
        known = "whether llama.cpp makes the same tokens is not known without llama-cpp-python"
        return vocabulary if vocabulary.sure else vocabulary.without(known)
    from hired.gguf.llama import tokens

    marks = [str(mark) for mark in (tokenizer.bos_token, tokenizer.eos_token) if mark]
    texts = [*_TEXTS, *(f"a {mark}b{mark}" for mark in marks)]
    with tempfile.TemporaryDirectory(prefix="hired-") as folder:
        path = Path(folder) / "vocabulary.gguf"
        _write(path, vocabulary, facts)
        found = tokens(path, texts)
    for text, ids in zip(texts, found, strict=True):
        if list(tokenizer(text, add_special_tokens=False)["input_ids"]) != ids:
            return vocabulary.without(f"llama.cpp makes other tokens of {text[:24]!r}")
    return vocabulary


def _write(path: Path, vocabulary: Vocabulary, facts: TextFacts) -> None:
    """Writes a file without weights."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, facts.architecture)
    write_header(writer, facts, None)
    vocabulary.write(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
