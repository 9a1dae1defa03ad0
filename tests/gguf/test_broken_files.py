"""Files that are wrong: one error of ours, and the process goes on. Each is tried in a process of its own."""

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="needs llama.cpp")

from tests.gguf import children
from tests.gguf.raw import Raw, read

Change = Callable[[Raw], bytes]
U32, U64, TEXT = 4, 10, 8
EMBEDDINGS = "token_embd.weight"


def whole(change: Callable[[Raw], Raw]) -> Change:
    return lambda raw: change(raw).bytes


def told(key: str, value: Any, kind: Any = None) -> Change:
    return whole(lambda raw: raw.told(key, value, kind))


def replaced(**parts: Any) -> Change:
    return whole(lambda raw: replace(raw, **parts))


def cut(bytes_left: int) -> Change:
    return lambda raw: raw.bytes[:bytes_left] if bytes_left > 0 else raw.bytes[: len(raw.bytes) + bytes_left]


def tensor(name: str, shape: tuple[int, ...] | None = None, kind: int = 0) -> Change:
    def change(raw: Raw) -> Raw:
        old = raw.tensors[name]
        return raw.held(name, (shape or old[0], kind, old[2]))

    return whole(change)


def started(name: str, start: int) -> Change:
    return whole(lambda raw: replace(raw, starts={name: start}))


VOCABULARY = {"tokenizer.ggml.model": (TEXT, "llama"), "tokenizer.ggml.tokens": ((TEXT,), ["a", "b"])}

WAYS: dict[str, tuple[Change, str]] = {
    "empty": (lambda raw: b"", "it is empty"),
    "another kind": (lambda raw: b"PK\3\4" + bytes(1000), "it is no GGUF file"),
    "two bytes": (lambda raw: b"GG", "it is no GGUF file"),
    "the mark alone": (lambda raw: b"GGUF", "cut off inside of its header"),
    "version 1": (replaced(version=1), "version 1 of the format"),
    "version 99": (replaced(version=99), "version 99 of the format"),
    "the other byte order": (replaced(version=3 << 24), "other byte order"),
    "cut in the metadata": (cut(200), "cut off inside of its header"),
    "cut in the tensors' names": (lambda raw: raw.header[:-20], "cut off inside of its header"),
    "cut at the weights": (lambda raw: raw.header, "cut off: .* bytes are there"),
    "cut in the weights": (cut(-4096), "cut off: .* bytes are there"),
    "a lot of keys": (replaced(keys=1 << 60), "more than any model has"),
    "more keys than there are": (replaced(keys=500), "damaged|cut off|no GGUF"),
    "a lot of tensors": (replaced(count=1 << 60), "more than any model has"),
    "more tensors than there are": (replaced(count=500), "damaged|cut off|not known"),
    "a long text": (told("general.name", struct.pack("<Q", 1 << 62), TEXT), "cut off inside of its header"),
    "a long list": (told("x", [], (U32, 1 << 60)), "more than any model has"),
    "a list longer than the file": (told("x", [1], (U32, 1 << 20)), "cut off inside of its header"),
    "a list of lists of lists": (told("x", struct.pack("<IQIQ", 9, 1, 9, 1) + bytes(64), 9), "type 9, which there is"),
    "a value of no type": (told("x", bytes(8), 77), "type 77, which there is not"),
    "a key twice": (replaced(twice=("general.architecture",)), "empty or there twice"),
    "a tensor twice": (replaced(twice=(EMBEDDINGS,)), "there twice"),
    "an alignment of 3": (told("general.alignment", 3, U32), "no power of 2"),
    "a tensor of 9 axes": (tensor(EMBEDDINGS, (1,) * 9), "has 9 axes"),
    "a tensor of nothing": (tensor(EMBEDDINGS, (64, 0)), "cannot be as it says"),
    "a huge tensor": (tensor(EMBEDDINGS, (1 << 40, 1 << 40)), "cannot be as it says"),
    "a tensor of no type": (tensor(EMBEDDINGS, kind=999), "type 999, which is not known"),
    "half a block": (tensor("output_norm.weight", (3,), 2), "cannot be as it says"),
    "a tensor between two places": (started(EMBEDDINGS, 7), "cannot be as it says"),
    "a tensor behind the end": (started(EMBEDDINGS, 1 << 40), "cut off: .* bytes are there"),
    "one part of several": (told("split.count", 3, 2), "one of 3 parts"),
    "a projector": (told("general.type", "mmproj", TEXT), "no language model but 'mmproj'"),
    "no architecture": (told("general.architecture", None), "names no architecture"),
    "an architecture that is a number": (told("general.architecture", 7, U32), "names no architecture"),
    "a known other architecture": (
        told("general.architecture", "falcon", TEXT),
        "'falcon' of llama.cpp's does not run",
    ),
    "an unknown architecture": (told("general.architecture", "nothing", TEXT), "'nothing' of llama.cpp's does not run"),
    "no weights": (whole(lambda raw: Raw({**raw.metadata, **VOCABULARY}, {})), "a vocabulary and no weights"),
    "no embeddings": (whole(lambda raw: raw.held(EMBEDDINGS, None)), "has no embeddings"),
    "embeddings of another width": (tensor(EMBEDDINGS, (32, 90)), "has no embeddings of 64 values"),
    "a vocabulary of another size": (
        whole(lambda raw: Raw({**raw.metadata, **VOCABULARY}, raw.tensors)),
        "names 2 tokens and has embeddings of",
    ),
    "no layers": (told("llama.block_count", 0), "block_count is 0"),
    "too many layers": (told("llama.block_count", 100000), "block_count is 100000"),
    "no heads": (told("llama.attention.head_count", 0), "head_count is 0"),
    "a head count that is a text": (told("llama.attention.head_count", "two", TEXT), "head_count is 'two'"),
    "a width that is no number": (told("llama.embedding_length", float("nan"), 6), "embedding_length is nan"),
    "layers that differ": (told("llama.feed_forward_length", [96, 90], (U32,)), r"feed_forward_length is \[96, 90\]"),
    "features for every layer": (told("llama.n_deepstack_layers", 2, U32), "2 layers and features for 2"),
    "a layer more": (told("llama.block_count", 3), "llama.cpp cannot load .*'blk.2.attn_norm.weight' not found"),
    "a weight missing": (
        whole(lambda raw: raw.held("blk.0.ffn_up.weight", None)),
        "llama.cpp cannot load .*'blk.0.ffn_up.weight' not found",
    ),
    "a weight of another shape": (tensor("blk.1.attn_k.weight", (128, 32)), "llama.cpp cannot load .*wrong shape"),
    "weights that overlap": (tensor("blk.1.attn_k.weight", (32, 64)), "llama.cpp cannot load .*has offset"),
}


@pytest.fixture(scope="module")
def good(exported: Callable[..., Path]) -> Raw:
    return read(exported("llava"))


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_file_is_one_error(way: str, good: Raw, tmp_path: Path) -> None:
    change, match = WAYS[way]
    path = tmp_path / "wrong.gguf"
    path.write_bytes(change(good))
    found = children.outcome(children.load, path)
    assert found is not None
    name, message = found
    assert name in ("ModelLoadError", "UnsupportedModelError"), found
    assert "\n" not in message
    assert re.search(match, message), message
    assert "wrong.gguf" in message or name == "UnsupportedModelError"


def test_what_the_changes_are_made_to_is_right(good: Raw, tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(good.bytes)
    assert children.outcome(children.load, path) is None


@pytest.mark.parametrize(("name", "match"), [("", "is a directory"), ("none.gguf", "No such file"), ("\0", "cannot")])
def test_no_file(name: str, match: str, tmp_path: Path) -> None:
    found = children.outcome(children.load, tmp_path / name)
    assert found is not None
    assert found[0] == "ModelLoadError"
    assert match in found[1]


@pytest.mark.parametrize("seed", range(12))
def test_damaged_headers_end_no_process(seed: int, good: Raw, tmp_path: Path) -> None:
    """Random bytes in the header: an error of ours, or a file that loads."""
    data, draw = bytearray(good.bytes), np.random.default_rng(seed)
    for place in draw.integers(4, len(good.header), 1 + seed % 3):
        data[place] = draw.integers(256)
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data)
    found = children.outcome(children.load, path)
    assert found is None or found[0] in ("ModelLoadError", "UnsupportedModelError"), found
