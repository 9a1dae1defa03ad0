"""How answers are generated: streamers, stop strings, chance, turns, and errors that leave the LLM usable."""

import gc
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("llama_cpp", reason="needs llama.cpp")

from examples.demo import pages

import hired
from hired import gguf
from hired.errors import HiredError, InputsError
from hired.gguf import llama
from tests.gguf import support
from tests.support import models, pictures

GREEDY = {"do_sample": False, "pad_token_id": 0}


def reduced_of(name: str, budget: float = 0.5, **settings: Any) -> Any:
    inputs = pictures.inputs(name, [[models.ALL[name].sizes[0]]])
    return hired.reduce(support.model(name), inputs, budget, **settings)


def new_of(reduced: Any, ids: torch.Tensor) -> list[int]:
    return ids[0, reduced["input_ids"].shape[1] :].tolist()


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call computes."""
    counts: list[int] = []
    feed = llama.Context._feed

    def noted(self: Any, ids: Any, rows: Any, positions: Any, logits: bool) -> None:
        counts.append(positions.shape[-1])
        feed(self, ids, rows, positions, logits)

    monkeypatch.setattr(llama.Context, "_feed", noted)
    return counts


def test_streamers_are_told_what_transformers_tells_them(engine: Any) -> None:
    class Told:
        def __init__(self) -> None:
            self.values: list[Any] = []

        def put(self, value: torch.Tensor) -> None:
            self.values.append((value.shape, value.tolist()))

        def end(self) -> None:
            self.values.append("end")

    reduced = reduced_of("llava")
    theirs, ours = Told(), Told()
    support.model("llava").generate(**reduced, **GREEDY, max_new_tokens=5, streamer=theirs)
    engine("llava").generate(reduced, max_new_tokens=5, streamer=ours)
    assert ours.values == theirs.values


def test_end_tokens_are_the_checkpoints(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third new token is made one; it is part of the answer."""
    reduced, llm, model = reduced_of("llava"), engine("llava"), support.model("llava")
    plain = new_of(reduced, llm.generate(reduced, max_new_tokens=8))
    monkeypatch.setattr(model.generation_config, "eos_token_id", [1, plain[2]])
    found = new_of(reduced, llm.generate(reduced, max_new_tokens=8))
    assert found == plain[: plain.index(plain[2]) + 1]
    assert llm.generate(reduced, max_new_tokens=8).dtype == torch.int64


def test_stop_strings_end_an_answer(engine: Any) -> None:
    reduced, tokenizer = reduced_of("llava"), models.processor("llava").tokenizer
    llm = engine("llava", processor=models.processor("llava"))
    plain = new_of(reduced, llm.generate(reduced, max_new_tokens=12))
    texts = [tokenizer.decode(plain[: count + 1], skip_special_tokens=True) for count in range(len(plain))]
    stop = texts[-1][3:5]
    ends = next(count for count, text in enumerate(texts) if stop in text)
    assert 0 < ends < len(plain) - 1
    for given in (stop, ["never", stop]):
        assert new_of(reduced, llm.generate(reduced, max_new_tokens=12, stop=given)) == plain[: ends + 1]
    assert new_of(reduced, llm.generate(reduced, max_new_tokens=12, stop="never said")) == plain
    with pytest.raises(InputsError, match="stop needs the text of tokens"):
        engine("llava").generate(reduced, stop="a")


def test_stop_strings_by_the_files_own_vocabulary(tmp_path: Path) -> None:
    model, processor = hired.load_tiny()
    path = tmp_path / "tiny.gguf"
    gguf.export(model, processor, path, "q8_0")
    page, (question, _, _) = pages(1)[0]
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    reduced = hired.reduce(model, processor(text=prompt, images=page.image, return_tensors="pt"), 0.2)
    with gguf.LLM(path, threads=1) as llm:
        answer = new_of(reduced, llm.generate(reduced, max_new_tokens=8))
        text = processor.decode(answer[:2], skip_special_tokens=True)
        assert len(text.strip()) > 1
        assert new_of(reduced, llm.generate(reduced, max_new_tokens=8, stop=text[-2:])) == answer[:2]


def test_chance_is_the_seeds(engine: Any) -> None:
    llm, reduced = engine("llava"), reduced_of("llava")

    def drawn(**settings: Any) -> list[int]:
        return new_of(reduced, llm.generate(reduced, max_new_tokens=12, **settings))

    greedy = drawn()
    hot = [drawn(temperature=50.0, seed=seed) for seed in range(4)]
    assert len({*map(tuple, hot)}) == 4
    assert drawn(temperature=50.0, seed=2) == hot[2]
    assert drawn(temperature=50.0, top_p=1e-6, seed=1) == greedy
    assert drawn(temperature=1e-3, seed=1) == greedy
    assert len({tuple(drawn(temperature=50.0)) for _ in range(4)}) > 1


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl", "gemma3"])
def test_a_turn_computes_what_is_new(name: str, engine: Any, fed: list[int]) -> None:
    """Also where the cache has to grow for it; the answer is the one to a prompt that is computed whole."""
    llm, reduced = engine(name), reduced_of(name)
    first = llm.generate(reduced, max_new_tokens=4)
    tail = torch.tensor([models.processor(name).tokenizer("c:", add_special_tokens=False)["input_ids"] * 20])
    again = gguf.follow_up(reduced, torch.cat((first, tail), 1))
    fed.clear()
    second = llm.generate(again, max_new_tokens=300)
    length = again["input_ids"].shape[1]
    assert llm.held == second.shape[1] - 1
    assert sum(fed) == llm.held - (first.shape[1] - 1)
    assert llm.context_size >= length
    llm.forget()
    fed.clear()
    assert torch.equal(llm.generate(again, max_new_tokens=300), second)
    assert sum(fed) == llm.held


def test_another_prompt_starts_afresh(engine: Any, fed: list[int]) -> None:
    """The same ids with another picture behind them are another prompt."""
    llm, model = engine("llava"), support.model("llava")
    one, other = (
        hired.reduce(model, pictures.inputs("llava", [[(64, 64)]], seed=seed), 7, method="random") for seed in (0, 1)
    )
    first = llm.generate(one, max_new_tokens=3)
    assert torch.equal(one["input_ids"], other["input_ids"])
    longer = gguf.follow_up(other, torch.cat((first, torch.tensor([[7, 8]])), 1))
    fed.clear()
    found = llm.next_logits(longer)
    assert sum(fed) == longer["input_ids"].shape[1]
    with torch.no_grad():
        wanted = model(**longer).logits[0, -1]
    torch.testing.assert_close(found, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)


def test_follow_up_refuses_another_conversation() -> None:
    reduced = reduced_of("llava")
    ids = reduced["input_ids"]
    for wrong in (ids[:, 1:], ids + 1, ids[0], [1], torch.cat((ids, ids))):
        with pytest.raises(InputsError, match="begin with the input_ids"):
            gguf.follow_up(reduced, wrong)


def test_errors_leave_it_usable(engine: Any) -> None:
    llm, reduced = engine("llava"), reduced_of("llava")
    wanted = llm.generate(reduced, max_new_tokens=4)

    class Tired:
        def put(self, value: torch.Tensor) -> None:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            llm.generate(reduced, max_new_tokens=4, streamer=Tired())
        assert torch.equal(llm.generate(reduced, max_new_tokens=4), wanted)
    with pytest.raises(HiredError):
        llm.generate(reduced, max_new_tokens=0)
    assert torch.equal(llm.generate(reduced, max_new_tokens=4), wanted)


def test_closed_is_closed(engine: Any) -> None:
    llm, reduced = engine("llava"), reduced_of("llava")
    llm.generate(reduced, max_new_tokens=2)
    llm.close()
    llm.close()
    with pytest.raises(HiredError, match="was closed"):
        llm.generate(reduced, max_new_tokens=2)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens=2.5"),
        ({"max_new_tokens": True}, "max_new_tokens=True"),
        ({"temperature": -1}, "temperature=-1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32 - 1}, "seed=4294967295"),
        ({"stop": ""}, "stop=''"),
        ({"stop": ["a", 5]}, "stop="),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], match: str, engine: Any) -> None:
    with pytest.raises(HiredError, match=match):
        engine("llava").generate(reduced_of("llava"), **settings)


@pytest.mark.parametrize(
    "settings", [{"threads": 0}, {"threads": 1.5}, {"context": 0}, {"context": True}, {"context": 10**12}]
)
def test_settings_of_an_llm(settings: dict[str, Any], engine: Any) -> None:
    (name,) = settings
    with pytest.raises(HiredError, match=f"{name}="):
        engine("llava", **settings)


def test_a_context_of_ones_own_is_the_limit(engine: Any) -> None:
    reduced = reduced_of("llava")
    length = reduced["input_ids"].shape[1]
    llm = engine("llava", context=length + 3)
    assert llm.generate(reduced, max_new_tokens=50).shape[1] <= length + 3
    with pytest.raises(InputsError, match=f"context={length}"):
        engine("llava", context=length).generate(reduced)


def test_no_context_is_larger_than_the_models_positions(engine: Any) -> None:
    llm, reduced = engine("llava", context=10**9), reduced_of("llava")
    llm.generate(reduced, max_new_tokens=2)
    assert llm.context_size == 4096


def test_inputs_tell_their_model_as_long_as_it_is_there(engine: Any, exported: Callable[..., Path]) -> None:
    from tests.support.cases import llava

    model = llava.llava()
    reduced = hired.reduce(model, pictures.inputs("llava", [[(64, 64)]]), 0.5)
    assert reduced.model is model
    assert reduced.copy().model is model
    assert (reduced | {"x": 1}).model is model
    stored = pickle.loads(pickle.dumps(reduced))
    assert stored.model is None
    wanted = engine("llava").generate(reduced, max_new_tokens=4)
    with gguf.LLM(exported("llava"), tower=model, threads=1, exact=True) as llm:
        assert torch.equal(llm.generate(stored, max_new_tokens=4), wanted)
    del model, llm
    gc.collect()
    assert reduced.model is None
    with pytest.raises(InputsError, match="do not tell what they were reduced for"):
        engine("llava").generate(reduced)
