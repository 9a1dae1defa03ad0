"""What a GGUF file says of the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Vocabulary"]


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and how text becomes them, as llama.cpp knows it.

    Attributes:
        model: "gpt2" or "llama", llama.cpp's names for byte-level BPE and SentencePiece; "none" for a file without.
        why_not: why the file has no vocabulary, None where it has one.
        special: ids by what they are for: "bos", "eos", "pad", "unk", "eot".
        template: the chat template.
    """

    model: str = "none"
    why_not: str | None = None
    special: dict[str, int] = field(default_factory=dict)
    template: str | None = None

    def write(self, writer: Any) -> None:
        """Puts it into a `gguf.GGUFWriter`."""
        writer.add_tokenizer_model(self.model)
        for name, value in self.special.items():
            getattr(writer, f"add_{name}_token_id")(value)
        if self.template:
            writer.add_chat_template(self.template)
