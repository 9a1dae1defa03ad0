"""Tokenizers in GGUF files: what is written, and that llama.cpp makes the same tokens."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

gguf = pytest.importorskip("gguf", reason="need llama.cpp (make test-gguf runs them)")

from hired.gguf import export  # noqa: E402
from hired.gguf.exporting import export_checkpoint, probing, vocabulary  # noqa: E402
from tests.gguf import language  # noqa: E402
from tests.support import models as families  # noqa: E402

needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="need llama.cpp (make test-gguf runs them)"
)
CORPUS = [
    *(Path(__file__).parent / name for name in ("language.py", "test_export.py", "test_export_exact.py")),
]
CUTS = {name: parts for parts, name in vocabulary._FIRST_CUTS.items() if len(parts) == 1 and parts != ("words",)}
"""Regular expressions by llama.cpp's names."""


def trained(pre: str, rows: int = 600, **settings: Any) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the first cut of a name, trained on files beside this one."""
    raw = Tokenizer(models.BPE(ignore_merges=pre in ("llama-bpe", "tekken"), **settings))
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre not in CUTS)
    steps = [words]
    if pre in CUTS:
        steps = [pre_tokenizers.Split(Regex(CUTS[pre][0]), "isolated"), words]
    elif pre == "smollm":
        steps = [pre_tokenizers.Digits(individual_digits=True), words]
    raw.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else words
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=rows,
        special_tokens=["<s>", "</s>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train([str(path) for path in CORPUS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")


def pieces(prefix: bool, rows: int = 700) -> PreTrainedTokenizerFast:
    """A tokenizer as SentencePiece makes them: characters, and bytes to fall back to."""
    steps: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    shape = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    if not prefix:
        shape = normalizers.Replace(" ", "▁")
    learned = Tokenizer(models.BPE())
    learned.normalizer = shape
    trainer = trainers.BpeTrainer(vocab_size=rows - 260, show_progress=False)
    # A token of SentencePiece's begins with the space in front of a word, and has none inside.
    learned.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    learned.train([str(path) for path in CORPUS], trainer)
    found = learned.get_vocab()
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    order = [*first, *sorted(found, key=found.__getitem__)]
    merges = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
    ids = {token: row for row, token in enumerate(order)}
    raw = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    raw.normalizer = shape
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def written(tokenizer: Any, path: Path, rows: int = 640) -> tuple[Any, dict[str, Any]]:
    """What `export` says of a file with a tokenizer, and the file's header."""
    said = export(language.make("Llama", vocab_size=rows), tokenizer, path)
    return said, {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}


@needs_llama_cpp
@pytest.mark.parametrize("pre", [*CUTS, "smollm", "gpt-2"])
def test_byte_level_tokenizers(pre: str, tmp_path: Path) -> None:
    tokenizer = trained(pre)
    said, told = written(tokenizer, tmp_path / "a.gguf")
    assert (said.vocabulary, said.why_not) == ("gpt2", None)
    assert told["tokenizer.ggml.pre"] == pre
    assert len(told["tokenizer.ggml.tokens"]) == len(told["tokenizer.ggml.token_type"]) == 640
    for row in (0, 2, 77, 599):
        assert told["tokenizer.ggml.tokens"][row] == tokenizer.convert_ids_to_tokens(row)
    assert told["tokenizer.ggml.tokens"][-1] == "[PAD639]"
    assert told["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert told["tokenizer.ggml.token_type"][-1] == 5
    assert [told[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos")] == [0, 1]
    assert told["tokenizer.ggml.add_bos_token"] is False


@needs_llama_cpp
@pytest.mark.parametrize("prefix", [True, False])
def test_tokenizers_of_pieces(prefix: bool, tmp_path: Path) -> None:
    said, told = written(pieces(prefix), tmp_path / "a.gguf", 720)
    assert (said.vocabulary, said.why_not) == ("llama", None)
    assert told["tokenizer.ggml.add_space_prefix"] is prefix
    assert told["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    scores = told["tokenizer.ggml.scores"]
    assert len(scores) == 720
    assert max(scores) == 0


@needs_llama_cpp
def test_a_tokenizer_that_llama_cpp_does_otherwise_is_left_out(tmp_path: Path) -> None:
    tokenizer = trained("qwen2")
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    said, told = written(tokenizer, tmp_path / "a.gguf")
    assert said.vocabulary is None
    assert str(said.why_not).startswith("llama.cpp makes other tokens of ")
    assert told["tokenizer.ggml.model"] == "none"
    assert "tokenizer.ggml.tokens" not in told
    assert told["tokenizer.ggml.eos_token_id"] == 1


def test_a_first_cut_that_llama_cpp_does_not_know(tmp_path: Path) -> None:
    tokenizer = trained("gpt-2")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("[aeiou]"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    said, _ = written(tokenizer, tmp_path / "a.gguf")
    assert said.why_not == "llama.cpp does not know how it cuts text at first"


@pytest.mark.parametrize(
    ("tokenizer", "match"),
    [
        (None, "no tokenizer was given"),
        (families.tokenizer(), "llama.cpp has no tokenizer of the kind WordLevel"),
    ],
)
def test_other_tokenizers(tokenizer: Any, match: str, tmp_path: Path) -> None:
    said, told = written(tokenizer, tmp_path / "a.gguf")
    assert (said.vocabulary, said.why_not) == (None, match)
    assert told["tokenizer.ggml.model"] == "none"
    assert told["tokenizer.ggml.bos_token_id"] == 1


def test_more_tokens_than_the_model_has(tmp_path: Path) -> None:
    said, _ = written(trained("gpt-2"), tmp_path / "a.gguf", 512)
    assert said.why_not == "its ids do not fit the 512 that the model knows"


def test_without_llama_cpp_only_what_is_sure_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(probing.importlib.util, "find_spec", lambda name: None if name == "llama_cpp" else find(name))
    assert written(trained("qwen2"), tmp_path / "a.gguf")[0].vocabulary == "gpt2"
    said = export_checkpoint("tiny", tmp_path / "b.gguf")  # whose digits are those of ASCII
    assert said.why_not == "whether llama.cpp makes the same tokens is not known without llama-cpp-python"


@needs_llama_cpp
def test_the_shipped_model_has_vocabulary_template_and_ends(tmp_path: Path) -> None:
    import hired

    model, processor = hired.load_tiny()
    said = export_checkpoint("tiny", tmp_path / "a.gguf")
    assert (said.vocabulary, said.architecture) == ("gpt2", "llama")
    told = {key: field.contents() for key, field in gguf.GGUFReader(tmp_path / "a.gguf").fields.items()}
    assert told["tokenizer.ggml.pre"] == "smollm"
    assert told["tokenizer.ggml.eos_token_id"] == model.generation_config.eos_token_id
    texts = [processor.tokenizer.convert_ids_to_tokens(row) for row in range(40)]
    assert told["tokenizer.ggml.tokens"][:40] == texts
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    assert told.get("tokenizer.chat_template") == template


def test_chat_templates_and_second_ends_are_told(tmp_path: Path) -> None:
    model = language.make("Llama", vocab_size=640)
    model.generation_config.eos_token_id = [1, 2]
    tokenizer = trained("qwen2")
    tokenizer.chat_template = "{{ messages }}"
    export(model, tokenizer, tmp_path / "a.gguf")
    told = {key: field.contents() for key, field in gguf.GGUFReader(tmp_path / "a.gguf").fields.items()}
    assert told["tokenizer.chat_template"] == "{{ messages }}"
    assert (told["tokenizer.ggml.eos_token_id"], told["tokenizer.ggml.eot_token_id"]) == (1, 2)
