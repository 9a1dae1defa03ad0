"""What llama.cpp makes of an LLM's weights under a type such as `q4_k_m`: every tensor's own type, and its bytes.

A type is a mixture: some tensors keep more bits than the rest. The rules are those that `llama_model_quantize` applies
to dense models (llama.cpp, `llama-quant.cpp`), without an importance matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hired.errors import HiredError

__all__ = ["BLOCKS", "TYPES", "Stored", "check_type", "stored", "stored_bytes"]

BLOCKS = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}
"""(weights of a block, its bytes) by ggml type."""

TYPES = {
    "f32": "F32",
    "f16": "F16",
    "bf16": "BF16",
    "q8_0": "Q8_0",
    "q6_k": "Q6_K",
    "q5_k_m": "Q5_K",
    "q5_k_s": "Q5_K",
    "q5_1": "Q5_1",
    "q5_0": "Q5_0",
    "q4_k_m": "Q4_K",
    "q4_k_s": "Q4_K",
    "q4_1": "Q4_1",
    "q4_0": "Q4_0",
    "q3_k_m": "Q3_K",
    "q2_k": "Q2_K",
}
"""The ggml type that most tensors of a file have, by the file's type."""

FALLBACKS = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What a tensor gets whose rows are no multiple of the block."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a file.

    Attributes:
        name: as llama.cpp calls it.
        shape: (rows, columns), or (columns,) of a vector.
        type: a key of `BLOCKS`.
    """

    name: str
    shape: tuple[int, ...]
    type: str

    @property
    def bytes(self) -> int:
        """What it takes."""
        weights, size = BLOCKS[self.type]
        rows = self.shape[0] if len(self.shape) > 1 else 1
        return rows * (self.shape[-1] // weights) * size


def check_type(name: str) -> str:
    """The name as the tables have it.

    Raises:
        HiredError: a type that is not known.
    """
    known = name.strip().lower()
    if known not in TYPES:
        raise HiredError(f"unknown GGUF type {name!r}: use one of {', '.join(TYPES)}")
    return known


def stored_bytes(config: Any, type: str) -> int:
    """Bytes of all tensors of an LLM's file."""
    return sum(tensor.bytes for tensor in stored(config, type))


def stored(config: Any, type: str) -> Iterator[Stored]:
    """Every tensor of an LLM's file, in the order in which llama.cpp writes them.

    Args:
        config: of the whole model.
        type: a key of `TYPES`.

    Raises:
        UnsupportedModelError: an LLM whose tensors are not known.
    """
    from hired.costs.flops import LLM  # which brings PyTorch, and options are looked up here before

    llm, text = LLM.of(config), config.text_config
    mixture = _Mixture(type, llm.layers, llm.heads // llm.kv_heads)
    inner, grouped = llm.heads * llm.head_dim, llm.kv_heads * llm.head_dim
    tied = bool(config.tie_word_embeddings)
    biased = text.model_type == "qwen2" or bool(getattr(text, "attention_bias", False))
    table = (llm.vocabulary, llm.hidden)
    yield Stored("token_embd.weight", table, mixture.head(llm.hidden) if tied else mixture.plain(llm.hidden))
    yield Stored("output_norm.weight", (llm.hidden,), "F32")
    if not tied:
        yield Stored("output.weight", table, mixture.head(llm.hidden))
    for i in range(llm.layers):
        here = f"blk.{i}."
        yield Stored(f"{here}attn_norm.weight", (llm.hidden,), "F32")
        for part, rows in (("q", inner), ("k", grouped), ("v", grouped)):
            kind = mixture.value(i, llm.hidden) if part == "v" else mixture.plain(llm.hidden)
            yield Stored(f"{here}attn_{part}.weight", (rows, llm.hidden), kind)
            if biased:
                yield Stored(f"{here}attn_{part}.bias", (rows,), "F32")
        if text.model_type == "qwen3":
            yield Stored(f"{here}attn_q_norm.weight", (llm.head_dim,), "F32")
            yield Stored(f"{here}attn_k_norm.weight", (llm.head_dim,), "F32")
        yield Stored(f"{here}attn_output.weight", (llm.hidden, inner), mixture.output(inner))
        yield Stored(f"{here}ffn_norm.weight", (llm.hidden,), "F32")
        for part in ("gate", "up"):
            yield Stored(f"{here}ffn_{part}.weight", (llm.intermediate, llm.hidden), mixture.plain(llm.hidden))
        yield Stored(f"{here}ffn_down.weight", (llm.hidden, llm.intermediate), mixture.down(i, llm.intermediate))


@dataclass(frozen=True)
class _Mixture:
    """The types of one file's matrices.

    Attributes:
        name: a key of `TYPES`.
        layers: of the LLM.
        shared: query heads that share a key-value head.
    """

    name: str
    layers: int
    shared: int

    @property
    def base(self) -> str:
        """The type of most of them."""
        return TYPES[self.name]

    def plain(self, columns: int) -> str:
        """Queries, keys, gates, ups, and an embedding table of its own."""
        return self._fitting(self.base, columns)

    def head(self, columns: int) -> str:
        """The LM head, or the table that serves as both."""
        if BLOCKS[self.base][0] == 1:
            return self.base
        fits = columns % BLOCKS[self.base][0] == 0
        return self._fitting("Q6_K" if fits and self.base != "Q8_0" else "Q8_0", columns)

    def value(self, layer: int, columns: int) -> str:
        """The values' projection."""
        many = self.shared >= 4
        found = {
            "q2_k": "Q4_K" if many else "Q3_K",
            "q3_k_m": "Q5_K" if layer < 2 else "Q4_K",
            "q4_k_s": "Q5_K" if layer < 4 else "Q4_K",
            "q4_k_m": "Q6_K" if self._more(layer) else "Q4_K",
            "q5_k_m": "Q6_K" if self._more(layer) else "Q5_K",
        }.get(self.name, self.base)
        if self.layers == 80 and self.shared > 1 and found in ("Q3_K", "Q4_K"):  # what llama.cpp knows as 70B
            found = "Q5_K"
        return self._fitting(found, columns)

    def output(self, columns: int) -> str:
        """The attention's output projection."""
        return self._fitting({"q2_k": "Q3_K", "q3_k_m": "Q4_K"}.get(self.name, self.base), columns)

    def down(self, layer: int, columns: int) -> str:
        """The MLP's output projection."""
        found = {
            "q2_k": "Q3_K",
            "q3_k_m": "Q5_K" if layer < self.layers // 16 else "Q4_K",
            "q4_k_s": "Q5_K" if layer < self.layers // 8 else "Q4_K",
            "q4_k_m": "Q6_K" if self._more(layer) else "Q4_K",
            "q5_k_m": "Q6_K" if self._more(layer) else "Q5_K",
        }.get(self.name, self.base)
        return self._fitting(found, columns)

    def _more(self, layer: int) -> bool:
        """Whether a `_m` mixture gives a layer more bits: the first and last eighth, and every third between."""
        eighth = self.layers // 8
        return layer < eighth or layer >= 7 * self.layers // 8 or (layer - eighth) % 3 == 2

    def _fitting(self, kind: str, columns: int) -> str:
        """A type that rows of this length can have."""
        if columns % BLOCKS[kind][0]:
            kind = FALLBACKS.get(kind, kind)
        return "F16" if columns % BLOCKS[kind][0] else kind
