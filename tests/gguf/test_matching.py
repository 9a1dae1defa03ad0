"""Files and inputs that are not of one checkpoint, and inputs that would end the process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("llama_cpp", reason="needs llama.cpp")

import hired
from hired import gguf
from hired.errors import HiredError, InputsError, ModelLoadError, UnsupportedModelError
from tests.gguf import children, support
from tests.gguf.raw import read
from tests.support import models, pictures

U32, F32, TEXT = 4, 6, 8

OTHER: dict[str, tuple[str, Any, Any]] = {
    "layers": ("llama.block_count", 3, U32),
    "heads": ("llama.attention.head_count", 4, U32),
    "key-value heads": ("llama.attention.head_count_kv", 1, U32),
    "feed-forward width": ("llama.feed_forward_length", 128, U32),
    "size of heads": ("llama.attention.key_length", 64, U32),
    "size of values": ("llama.attention.value_length", 64, U32),
    "what RoPE turns": ("llama.rope.dimension_count", 16, U32),
    "base of RoPE": ("llama.rope.freq_base", 1e6, F32),
    "epsilon": ("llama.attention.layer_norm_rms_epsilon", 1e-3, F32),
    "stretched RoPE": ("llama.rope.scaling.type", "linear", TEXT),
    "features of layers": ("llama.n_deepstack_layers", 1, U32),
}


def inputs_of(name: str = "llava", budget: float = 0.5, **settings: Any) -> Any:
    inputs = pictures.inputs(name, [[models.ALL[name].sizes[0]]])
    return hired.reduce(support.model(name), inputs, budget, **settings)


@pytest.mark.parametrize("what", OTHER)
def test_a_file_of_another_model(what: str, exported: Callable[..., Path], tmp_path: Path) -> None:
    """Of one architecture and width; found before the weights are read."""
    key, value, kind = OTHER[what]
    path = tmp_path / "other.gguf"
    path.write_bytes(read(exported("llava")).told(key, value, kind).bytes)
    with pytest.raises(ModelLoadError, match=rf"other.gguf is not the language model of this checkpoint: {key} is"):
        gguf.LLM(path, tower=support.model("llava"))


def test_a_file_of_another_architecture_or_width(engine: Any) -> None:
    with pytest.raises(ModelLoadError, match=r"general\.architecture is llama in the file and qwen2vl in the"):
        engine("llava", tower=support.model("qwen2_vl"))
    with pytest.raises(ModelLoadError, match=r"general\.architecture is"):
        engine("llava").generate(inputs_of("qwen2_vl"))
    tower, _ = gguf.load_tower("tiny", device="cpu")
    with pytest.raises(ModelLoadError, match="embedding_length is 64 in the file and 192"):
        engine("llava", tower=tower)


def test_a_vocabulary_that_differs(exported: Callable[..., Path], tmp_path: Path) -> None:
    """Tokens of text must be the same ones; special tokens that a checkpoint added must not be fed as text."""
    raw = read(exported("llava"))
    words = list(models.WORDS)
    model, processor = support.model("llava"), models.processor("llava")

    def llm(tokens: list[str]) -> gguf.LLM:
        path = tmp_path / "words.gguf"
        told = raw.told("tokenizer.ggml.model", "llama", TEXT).told("tokenizer.ggml.tokens", tokens, (TEXT,))
        told = told.told("tokenizer.ggml.scores", [0.0] * len(tokens), (F32,))
        told = told.told("tokenizer.ggml.token_type", [1] * len(tokens), (5,))
        path.write_bytes(told.bytes)
        return gguf.LLM(path, tower=model, processor=processor, threads=1, exact=True)

    reduced = inputs_of()
    with llm(words) as right:
        wanted = right.generate(reduced, max_new_tokens=3)
    swapped = [*words]
    a, b = words.index("a"), words.index("b")
    swapped[a], swapped[b] = "b", "a"
    with pytest.raises(ModelLoadError, match=f"token {a} is 'b' in the file and 'a'"):
        llm(swapped)
    placeholder = [*words]
    placeholder[models.IMAGE_ID] = "[PAD]"
    with llm(placeholder) as other:  # the placeholder of pictures is not fed
        assert torch.equal(other.generate(reduced, max_new_tokens=3), wanted)
    beginning = [*words]
    beginning[words.index("</s>")] = "[PAD]"
    changed = reduced | {"input_ids": reduced["input_ids"].clone()}
    changed["input_ids"][0, 0] = words.index("</s>")
    with llm(beginning) as other, pytest.raises(InputsError, match="token 2, which is another one"):
        other.generate(changed)


def long(reduced: Any) -> Any:
    ids = torch.cat((reduced["input_ids"], reduced["input_ids"].new_full((1, 5000), 7)), 1)
    return gguf.follow_up(reduced, ids)


def featured(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], Any]:
    def changed(reduced: Any) -> Any:
        output = reduced["mm_encoder_outputs"]["image"]
        output.pooler_output = [change(each) for each in output.pooler_output]
        return reduced | {"mm_encoder_outputs": {"image": output}}

    return changed


def with_ids(value: int) -> Callable[[Any], Any]:
    def changed(reduced: Any) -> Any:
        ids = reduced["input_ids"].clone()
        ids[0, 0] = value
        return reduced | {"input_ids": ids}

    return changed


def nan(features: torch.Tensor) -> torch.Tensor:
    features = features.clone()
    features[0, 0] = float("nan")
    return features


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no mapping": (lambda reduced: 5, "takes what hired.reduce returns, got int"),
    "no ids": (lambda reduced: {**reduced, "input_ids": None}, "input_ids must be"),
    "ids of one axis": (lambda reduced: reduced | {"input_ids": reduced["input_ids"][0]}, "input_ids must be"),
    "ids that are fractions": (lambda reduced: reduced | {"input_ids": reduced["input_ids"] / 2}, "whole numbers"),
    "two prompts": (
        lambda reduced: (
            reduced
            | {"input_ids": reduced["input_ids"].repeat(2, 1), "attention_mask": reduced["attention_mask"].repeat(2, 1)}
        ),
        "one prompt at a time here, got 2",
    ),
    "an id behind the vocabulary": (with_ids(48), "token 48 and .* has 48"),
    "an id far behind it": (with_ids(10**9), "token 1,000,000,000 and"),
    "a negative id": (with_ids(-1), "token -1 and"),
    "a mask of another shape": (
        lambda reduced: reduced | {"attention_mask": reduced["attention_mask"][:, 1:]},
        "attention_mask must be",
    ),
    "nothing but padding": (
        lambda reduced: reduced | {"attention_mask": reduced["attention_mask"] * 0},
        "the prompt is empty",
    ),
    "a cache": (lambda reduced: reduced | {"past_key_values": object()}, "a cache or inputs_embeds"),
    "embeddings": (lambda reduced: reduced | {"inputs_embeds": torch.zeros(1, 2, 64)}, "a cache or inputs_embeds"),
    "too long": (long, "leaves no room for an answer within the 4,096 tokens"),
    "a feature too few": (featured(lambda each: each[:-1]), "image placeholders"),
    "features of another width": (featured(lambda each: each[:, :-1]), "takes 64 values for each"),
    "features that are no numbers": (featured(nan), "no finite numbers"),
    "infinite features": (featured(lambda each: each * float("inf")), "no finite numbers"),
    "features that are whole numbers": (featured(lambda each: each.to(torch.int64)), "floating-point numbers"),
    "no features": (
        lambda reduced: reduced | {"mm_encoder_outputs": None},
        "image placeholders and the GGUF file takes 64 values for each, the pictures give 0",
    ),
}


@pytest.mark.parametrize("way", WRONG)
def test_wrong_inputs_are_one_error(way: str, engine: Any) -> None:
    change, match = WRONG[way]
    llm = engine("llava", tower=support.model("llava"))
    with pytest.raises(InputsError, match=match) as caught:
        llm.generate(change(inputs_of()))
    assert str(caught.value).isprintable()
    llm.generate(inputs_of(), max_new_tokens=1)


def test_gaps_in_positions_are_refused_where_there_can_be_none(engine: Any) -> None:
    with pytest.raises(InputsError, match='reduce with positions="consecutive"'):
        engine("llava").generate(inputs_of(positions="original"))
    engine("llava").generate(inputs_of(positions="consecutive"), max_new_tokens=1)


@pytest.mark.parametrize("name", support.REFUSED)
def test_language_models_that_llama_cpp_does_not_run(name: str, engine: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=r"language model of model_type .* does not run on llama.cpp"):
        engine("llava").generate(inputs_of(name))


def test_every_family_is_run_or_refused() -> None:
    assert {*support.RUN, *support.REFUSED} == {*models.ALL}


@pytest.mark.parametrize("file", [None, 5, b"a.gguf", object()])
def test_what_is_no_path(file: Any) -> None:
    with pytest.raises(HiredError):
        gguf.LLM(file)


def say_nothing(path: Path) -> None:
    """Loads a good and a bad file, and fails where anything is printed."""
    import os
    import tempfile

    with tempfile.TemporaryFile() as printed:
        before = [os.dup(1), os.dup(2)]
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        try:
            llm = gguf.LLM(path, threads=1)
            llm.close()
            path.write_bytes(read(path).held("blk.0.ffn_up.weight", None).bytes)
            with pytest.raises(ModelLoadError, match="not found"):
                gguf.LLM(path, threads=1)
        finally:
            os.dup2(before[0], 1)
            os.dup2(before[1], 2)
        printed.seek(0)
        said = printed.read()
    if said:
        raise AssertionError(said)


def test_llama_cpp_prints_nothing(exported: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "copy.gguf"
    path.write_bytes(exported("llava").read_bytes())
    assert children.outcome(say_nothing, path) is None
