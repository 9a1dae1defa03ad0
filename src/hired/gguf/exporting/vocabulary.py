"""What a GGUF file says of the tokenizer.

llama.cpp has two kinds that checkpoints here use: byte-level BPE, whose first cut of the text is one of a list in its
code, by name; and BPE over characters with bytes to fall back to, which SentencePiece makes. A tokenizer of another
kind, or with another first cut, is left out of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Vocabulary", "special_ids", "vocabulary_of"]

_END = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_FIRST_CUTS: dict[tuple[str, ...], str] = {
    (_WORDS + r"|\p{N}" + _END,): "qwen2",
    (_WORDS + r"|\p{N}{1,3}" + _END,): "llama-bpe",
    (_CASED + r"|\p{N}" + _END.replace(r"[\r\n]*", r"[\r\n/]*"),): "tekken",
    ("digits", "words"): "smollm",
    ("words",): "gpt-2",
}
"""llama.cpp's names for the first cut, by the regular expressions and cuts of a tokenizer's own file."""
_WHOLE_WORDS = ("llama-bpe", "tekken")
"""Names under which a word that is a token is not put together from parts."""
_DIGITS = (r"\p{N}", r"\p{Nd}", r"\d", "[0-9]")
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # `gguf.TokenType`
_SPACE = "▁"


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and how text becomes them, as llama.cpp knows it.

    Attributes:
        model: "gpt2" or "llama", llama.cpp's names for byte-level BPE and SentencePiece; "none" for a file without.
        why_not: why the file has no vocabulary, None where it has one.
        special: ids by what they are for: "bos", "eos", "unk", "pad", "eot".
        template: the chat template, or several by name.
        pre: llama.cpp's name for the first cut.
        sure: llama.cpp is known to make these tokens of any text; False where it has to be tried.
        tokens, types: the text and kind of every id.
        merges, scores: what is joined first, pairs in order or a number a token; one of them is empty.
        adds_bos: a prompt gets `bos` in front.
        adds_space: and a space.
    """

    model: str = "none"
    why_not: str | None = None
    special: Mapping[str, int] = field(default_factory=dict)
    template: Any = None
    pre: str = "default"
    sure: bool = True
    tokens: tuple[str, ...] = ()
    types: tuple[int, ...] = ()
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    adds_bos: bool = False
    adds_space: bool = False

    def without(self, why: str) -> Vocabulary:
        """The same without its tokens."""
        return Vocabulary(why_not=why, special=self.special, template=self.template)

    def write(self, writer: Any) -> None:
        """Puts it into a `gguf.GGUFWriter`."""
        writer.add_tokenizer_model(self.model)
        for name, value in self.special.items():
            getattr(writer, f"add_{name}_token_id")(value)
        if self.template:
            writer.add_chat_template(self.template)
        if not self.tokens:
            return
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        writer.add_token_scores(self.scores)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_space_prefix(self.adds_space)


def special_ids(tokenizer: Any, config: Any, ends: Iterable[int], rows: int) -> dict[str, int]:
    """Ids of special tokens, by what they are for.

    Args:
        tokenizer: the checkpoint's, or None for what the configuration tells.
        config: of the language model.
        ends: ids that end an answer; the first that is not `eos` is `eot`.
        rows: ids that the model knows.
    """
    found = {}
    for name in ("bos", "eos", "unk", "pad"):
        value = getattr(tokenizer if tokenizer is not None else config, f"{name}_token_id", None)
        found[name] = value[0] if isinstance(value, list | tuple) and value else value
    found["eot"] = next((end for end in ends if end != found["eos"]), None)
    return {name: int(value) for name, value in found.items() if type(value) is int and 0 <= value < rows}


def vocabulary_of(tokenizer: Any, special: Mapping[str, int], rows: int, template: Any = None) -> Vocabulary:
    """What llama.cpp can be told of a tokenizer.

    Args:
        tokenizer: one of transformers', or None.
        special: see `special_ids`.
        rows: ids that the model knows; those behind the tokenizer's are named, and marked as not in use.
        template: the chat template.
    """
    bare = Vocabulary(special=special, template=template)
    if tokenizer is None:
        return bare.without("no tokenizer was given")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return bare.without(f"{type(tokenizer).__name__} has no tokenizer.json")
    told = json.loads(backend.to_str())
    model = told["model"]
    if model.get("type") != "BPE":
        return bare.without(f"llama.cpp has no tokenizer of the kind {model.get('type')}")
    texts = {**model["vocab"], **{added["content"]: added["id"] for added in told["added_tokens"]}}
    if len(set(texts.values())) != len(texts) or max(texts.values(), default=0) >= rows:
        return bare.without(f"its ids do not fit the {rows:,} that the model knows")
    tokens = _tokens(texts, rows)
    types = _types(tokens, model, told["added_tokens"], set(texts.values()))
    adds_bos = bool(tokenizer("a")["input_ids"][:1] == [special.get("bos")])
    shared = {"special": special, "template": template, "tokens": tokens, "types": types, "adds_bos": adds_bos}
    merges = [pair if isinstance(pair, list) else pair.split(" ", 1) for pair in model["merges"]]
    if model.get("byte_fallback"):
        return _pieces(bare, told, merges, shared)
    return _bytes(bare, told, merges, shared)


def _bytes(bare: Vocabulary, told: Mapping[str, Any], merges: list[list[str]], shared: dict[str, Any]) -> Vocabulary:
    """Byte-level BPE."""
    steps = _steps(told["pre_tokenizer"])
    pre = None if steps is None else _FIRST_CUTS.get(tuple("digits" if step in _DIGITS else step for step in steps))
    if pre is None:
        return bare.without("llama.cpp does not know how it cuts text at first")
    whole = bool(told["model"].get("ignore_merges")) == (pre in _WHOLE_WORDS)
    exact = steps is not None and "[0-9]" not in steps and r"\d" not in steps
    return Vocabulary("gpt2", pre=pre, sure=whole and exact, merges=tuple(" ".join(pair) for pair in merges), **shared)


def _pieces(bare: Vocabulary, told: Mapping[str, Any], merges: list[list[str]], shared: dict[str, Any]) -> Vocabulary:
    """BPE over characters: llama.cpp joins the pair whose result has the highest score."""
    types = shared["types"]
    spaces = _spaces(told)
    if spaces is None or types.count(_BYTE) != 256:
        return bare.without("llama.cpp does not know what it makes of spaces and single bytes")
    order: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        order.setdefault("".join(pair), rank)
    scores = tuple(-float(order.get(token, len(merges))) for token in shared["tokens"])
    return Vocabulary("llama", scores=scores, adds_space=spaces, **shared)


def _tokens(texts: Mapping[str, int], rows: int) -> tuple[str, ...]:
    """The text of every id; of those that no text has, a name that is nobody's."""
    by_id = {value: text for text, value in texts.items()}
    named = (by_id.get(row) or next(name for name in _names(row) if name not in texts) for row in range(rows))
    return tuple(named)


def _names(row: int) -> Iterable[str]:
    """`[PAD7]`, `[PAD7_]` and so on."""
    name = f"[PAD{row}"
    while True:
        yield f"{name}]"
        name += "_"


def _types(
    tokens: tuple[str, ...], model: Mapping[str, Any], added: list[dict[str, Any]], used: set[int]
) -> tuple[int, ...]:
    """What every id is."""
    special = {each["id"]: _CONTROL if each["special"] else _USER for each in added}
    fallback, unknown = bool(model.get("byte_fallback")), model.get("unk_token")
    found = []
    for row, text in enumerate(tokens):
        if row not in used:
            found.append(_UNUSED)
        elif fallback and len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            found.append(_BYTE)
        elif fallback and text == unknown:
            found.append(_UNKNOWN)
        else:
            found.append(special.get(row, _NORMAL))
    return tuple(found)


def _steps(cutter: Mapping[str, Any] | None) -> list[str] | None:
    """The first cut's steps, None for one that is not known here: regular expressions, "digits" or "words"."""
    if cutter is None:
        return None
    if cutter["type"] == "Sequence":
        parts = [_steps(part) for part in cutter["pretokenizers"]]
        return None if any(part is None for part in parts) else [step for part in parts for step in part or ()]
    if cutter["type"] == "ByteLevel" and not cutter.get("add_prefix_space"):
        return ["words"] if cutter.get("use_regex", True) else []
    if cutter["type"] == "Digits" and cutter.get("individual_digits"):
        return ["digits"]
    pattern = cutter.get("pattern", {}).get("Regex")
    kept = (cutter.get("behavior"), bool(cutter.get("invert")))
    if cutter["type"] == "Split" and pattern and kept in (("Isolated", False), ("Removed", True)):
        return [pattern]
    return None


def _spaces(told: Mapping[str, Any]) -> bool | None:
    """Whether a text gets a space in front; None where spaces do not become `_SPACE` as SentencePiece has it."""
    normalizer, cutter = told["normalizer"], told["pre_tokenizer"]
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer or {}]
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    if cutter and cutter["type"] == "Metaspace" and cutter.get("replacement") == _SPACE and steps == [{}]:
        return bool(cutter.get("prepend_scheme") != "never")
    if steps == [{"type": "Prepend", "prepend": _SPACE}, replaced] and not cutter:
        return True
    # Gemma's also cuts where its normalizer has left no space.
    if steps == [replaced] and (not cutter or cutter.get("pattern") == {"String": " "}):
        return False
    return None
