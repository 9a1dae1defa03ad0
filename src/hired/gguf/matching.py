"""Whether a GGUF file is the language model of a checkpoint, told by all that the two say of it."""

from __future__ import annotations

import math
from typing import Any

from hired.errors import ModelLoadError
from hired.gguf.architectures import TextFacts, architecture_named
from hired.gguf.header import Header

__all__ = ["check_known", "check_matches", "foreign_tokens"]

_CLOSE = 1e-5
"""How far float32 numbers of one origin differ."""

_NORMAL = 1
"""Type of tokens that are text, in a file's vocabulary."""


def check_known(header: Header) -> None:
    """Refuses a file of an architecture that HiRED does not know, or without the sizes of one.

    Raises:
        UnsupportedModelError: such an architecture.
        ModelLoadError: sizes that are missing or that no model has.
    """
    architecture_named(header.architecture)
    for key, most in _SIZES.items():
        value = header.number(key)
        if value is None and key == "attention.head_count_kv":
            continue
        if type(value) is not int or not 1 <= value <= most:
            raise ModelLoadError(
                f"{header.name}: {header.architecture}.{key} is {value!r}, which no model has: it is damaged"
            )
    deepstack, layers = header.number("n_deepstack_layers") or 0, header.number("block_count") or 0
    if deepstack >= layers:  # llama.cpp ends the process: behind the last layer there is one token left to add them to
        raise ModelLoadError(f"{header.name} has {layers} layers and features for {deepstack} of them: it is damaged")
    embeddings = header.tensors.get("token_embd.weight")
    width = header.number("embedding_length")
    if embeddings is None or len(embeddings.shape) != 2 or embeddings.shape[0] != width:
        raise ModelLoadError(f"{header.name} has no embeddings of {width} values (token_embd.weight): it is damaged")
    if header.tokens is not None and len(header.tokens) != embeddings.shape[1]:
        raise ModelLoadError(
            f"{header.name} names {len(header.tokens):,} tokens and has embeddings of {embeddings.shape[1]:,}: it is"
            " damaged"
        )


_SIZES = {
    "block_count": 512,
    "embedding_length": 1 << 20,
    "feed_forward_length": 1 << 24,
    "attention.head_count": 1 << 12,
    "attention.head_count_kv": 1 << 12,
    "context_length": 1 << 30,
}
"""What every file tells, and the most that any model has."""


def check_matches(header: Header, facts: TextFacts) -> None:
    """Refuses a file of another language model than a checkpoint's.

    Args:
        header: of the file, which `check_known` has passed.
        facts: of the checkpoint.

    Raises:
        ModelLoadError: they differ; the first difference is told.
    """
    if header.architecture != facts.architecture:
        raise _differs(header, "general.architecture", header.architecture, facts.architecture)
    for key, wanted, usual in _numbers(facts):
        found = header.number(key)
        if found is None:
            found = usual
        if found is None and wanted is None:
            continue
        same = found is not None and wanted is not None and math.isclose(found, wanted, rel_tol=_CLOSE)
        if not same:
            raise _differs(header, f"{header.architecture}.{key}", found, wanted)
    sections = header.metadata.get(f"{header.architecture}.rope.dimension_sections") or []
    if facts.sections and tuple(sections[:3]) != facts.sections[:3]:
        raise _differs(header, f"{header.architecture}.rope.dimension_sections", sections, list(facts.sections))
    _check_scaling(header, facts)


def _numbers(facts: TextFacts) -> list[tuple[str, float | int | None, float | int | None]]:
    """Keys, what the checkpoint has there, and what a file without the key means; None for nothing."""
    epsilon = "layer_norm_rms_epsilon" if facts.facts.epsilon == "rms_norm_eps" else "layer_norm_epsilon"
    found: list[tuple[str, float | int | None, float | int | None]] = [
        ("embedding_length", facts.width, None),
        ("block_count", facts.layers, None),
        ("attention.head_count", facts.heads, None),
        ("attention.head_count_kv", facts.key_value_heads, facts.heads),
        ("feed_forward_length", facts.feed_forward, None),
        ("attention.key_length", facts.head_dim, facts.width // facts.heads),
        ("attention.value_length", facts.head_dim, facts.width // facts.heads),
        ("rope.dimension_count", facts.head_dim, facts.head_dim),
        ("rope.freq_base", facts.theta, 10000.0),
        (f"attention.{epsilon}", facts.epsilon, None),
        ("n_deepstack_layers", facts.deepstack, 0),
    ]
    if facts.facts.windows:  # the others' code does not read it
        found.append(("attention.sliding_window", facts.window, None))
    return found


def _check_scaling(header: Header, facts: TextFacts) -> None:
    """Refuses a file whose RoPE is stretched otherwise."""
    scaling = facts.scaling
    wanted = scaling.kind if scaling is not None else "none"
    named = header.metadata.get(f"{header.architecture}.rope.scaling.type", "none")
    found = "llama3" if "rope_freqs.weight" in header.tensors else named
    if found != wanted:
        raise _differs(header, f"{header.architecture}.rope.scaling.type", found, wanted)
    if scaling is None or wanted == "llama3":
        return
    factor = header.number("rope.scaling.factor")
    if factor is None or not math.isclose(factor, scaling.factor, rel_tol=_CLOSE):
        raise _differs(header, f"{header.architecture}.rope.scaling.factor", factor, scaling.factor)


def _differs(header: Header, key: str, found: Any, wanted: Any) -> ModelLoadError:
    return ModelLoadError(
        f"{header.name} is not the language model of this checkpoint: {key} is {found} in the file and {wanted} in the"
        " checkpoint; name the GGUF file of the checkpoint's own language model"
    )


def foreign_tokens(header: Header, tokenizer: Any) -> frozenset[int]:
    """Ids that mean one token in the file's vocabulary and another one to a checkpoint's tokenizer.

    Those are special tokens that a checkpoint has added to its language model's; none of them may be fed as text. Empty
    for a file without a vocabulary.

    Raises:
        ModelLoadError: A token of text differs: the file is of another language model.
    """
    texts = header.tokens
    if texts is None:
        return frozenset()
    kinds = header.metadata.get("tokenizer.ggml.token_type") or []
    known = tokenizer.convert_ids_to_tokens(range(min(len(tokenizer), len(texts))))
    added = tokenizer.added_tokens_decoder
    differing = [each for each, (mine, its) in enumerate(zip(texts, known, strict=False)) if its != mine]
    for each in differing:
        if each not in added and (each >= len(kinds) or kinds[each] == _NORMAL):
            raise ModelLoadError(
                f"{header.name} is not the language model of this checkpoint: token {each:,} is {texts[each]!r:.40} in"
                f" the file and {known[each]!r:.40} in the checkpoint's tokenizer; name the GGUF file of the"
                " checkpoint's own language model"
            )
    return frozenset(differing) | frozenset(range(len(known), len(texts)))
