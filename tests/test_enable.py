"""`hired.enable`: a model that drops tokens by itself."""

from typing import Any

import pytest
import torch
from transformers import GenerationConfig, TextIteratorStreamer, pipeline
from transformers.generation.streamers import BaseStreamer

import hired
from hired.tiny import WEIGHTS
from tests.support import models, pictures
from tests.support.enabling import SETTINGS, expected, fresh, watch
from tests.support.reducing import MIXED, every_family

# --- generate ----------------------------------------------------------------------------------------------------


@every_family
def test_generate_returns_the_callers_prompt_and_the_reduced_answer(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, MIXED)
    seen = watch(model)
    prompt = inputs["input_ids"]
    with hired.enable(model, budget=0.25):
        output = model.generate(**inputs, **SETTINGS)
    assert torch.equal(output[:, : prompt.shape[1]], prompt)
    assert torch.equal(output[:, prompt.shape[1] :], expected(name, inputs))
    reduced = hired.reduce(models.shared(name), inputs, 0.25)
    assert seen[:2] == ["tower", reduced["input_ids"].shape[1]]
    assert seen[2:] == [1] * 5, "reduced or encoded more than once"


@every_family
def test_settings_are_passed_on(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    asked: dict[str, Any] = {"alpha": 0.25, "newlines": "keep", "positions": "original"}
    reduced = hired.reduce(model, inputs, 0.4, **asked)
    new = model.generate(**reduced, **SETTINGS)[:, reduced["input_ids"].shape[1] :]
    with hired.enable(model, budget=0.4, **asked):
        output = model.generate(**inputs, **SETTINGS)
    assert torch.equal(output[:, inputs["input_ids"].shape[1] :], new)
    seen = watch(model)
    with hired.enable(model, budget=6, method="uniform"):
        model.generate(**inputs, **SETTINGS)
    assert seen[1] == hired.reduce(models.shared(name), inputs, 6)["input_ids"].shape[1]


@every_family
def test_the_handle_disables(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    plain = model.generate(**inputs, **SETTINGS)
    handle = hired.enable(model, budget=0.1)
    assert isinstance(handle, hired.Enabled)
    changed = model.generate(**inputs, **SETTINGS)
    assert torch.equal(changed[:, inputs["input_ids"].shape[1] :], expected(name, inputs, 0.1))
    handle.disable()
    assert torch.equal(model.generate(**inputs, **SETTINGS), plain)
    handle.disable()  # a second time does no harm
    assert torch.equal(model.generate(**inputs, **SETTINGS), plain)
    assert not torch.equal(changed, plain)


@every_family
def test_generate_takes_positional_arguments_as_before(name: str) -> None:
    model, inputs = fresh(name), dict(pictures.inputs(name, [[(64, 64)]]))
    ids = inputs.pop("input_ids")
    with hired.enable(model, budget=0.25):
        first = model.generate(ids, **inputs, **SETTINGS)
        second = model.generate(ids, GenerationConfig(**SETTINGS), **inputs)
        third = model.generate(inputs=ids, **inputs, **SETTINGS)
    new = expected(name, {"input_ids": ids, **inputs})
    for output in (first, second, third):
        assert torch.equal(output[:, : ids.shape[1]], ids)
        assert torch.equal(output[:, ids.shape[1] :], new)


@every_family
@pytest.mark.parametrize("how", ["argument", "config", "model's config"])
def test_max_length_counts_the_callers_prompt(name: str, how: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)], None])
    length = inputs["input_ids"].shape[1]
    settings = {key: value for key, value in SETTINGS.items() if key != "max_new_tokens"}
    if how == "config":
        given = {"generation_config": GenerationConfig(max_length=length + 4, **settings)}
    elif how == "argument":
        given = {"max_length": length + 4, **settings}
    else:
        model.generation_config.max_length = length + 4
        given = settings
    assert model.generate(**inputs, **given).shape[1] == length + 4
    before = model.generation_config.to_dict()
    with hired.enable(model, budget=0.25):
        output = model.generate(**inputs, **given)
    assert output.shape[1] == length + 4
    assert torch.equal(output[:, length:], expected(name, inputs, max_new_tokens=4))
    assert model.generation_config.to_dict() == before
    if how == "config":
        assert given["generation_config"].max_length == length + 4, "the caller's configuration was changed"


@every_family
@pytest.mark.filterwarnings("ignore:Using the model-agnostic default")
def test_without_any_length_as_many_tokens_as_before(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    settings = {key: value for key, value in SETTINGS.items() if key != "max_new_tokens"}
    plain = model.generate(**inputs, **settings)
    with hired.enable(model, budget=0.25):
        output = model.generate(**inputs, **settings)
    assert output.shape == plain.shape


@every_family
def test_min_length_counts_the_callers_prompt(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    length = inputs["input_ids"].shape[1]
    stop = int(expected(name, inputs)[0, 0])  # the first token it would say ends the answer
    with hired.enable(model, budget=0.25):
        short = model.generate(**inputs, **{**SETTINGS, "eos_token_id": stop})
        long = model.generate(**inputs, **{**SETTINGS, "eos_token_id": stop}, min_length=length + 3)
    assert short.shape[1] == length + 1
    assert long.shape[1] > length + 3
    new = expected(name, inputs, eos_token_id=stop, min_new_tokens=3)
    assert torch.equal(long[:, length:], new)


class Collector(BaseStreamer):
    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.ends = 0

    def put(self, value: torch.Tensor) -> None:
        self.calls.append(value.flatten().tolist())

    def end(self) -> None:
        self.ends += 1


@every_family
def test_streamers_see_the_callers_prompt(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    streamer = Collector()
    with hired.enable(model, budget=0.25):
        output = model.generate(**inputs, **SETTINGS, streamer=streamer)
    assert streamer.calls[0] == inputs["input_ids"][0].tolist()
    assert [token for call in streamer.calls for token in call] == output[0].tolist()
    assert streamer.ends == 1


@every_family
def test_text_streamers_skip_the_prompt(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    tokenizer = models.processor(name).tokenizer
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    with hired.enable(model, budget=0.25):
        model.generate(**inputs, **SETTINGS, streamer=streamer)
    # Streaming decodes word by word and may lose a space.
    assert "".join("".join(streamer).split()) == "".join(tokenizer.decode(expected(name, inputs)[0]).split())


@every_family
@pytest.mark.parametrize("beams", [1, 3])
def test_return_dict_in_generate(name: str, beams: int) -> None:
    model, inputs = fresh(name), pictures.inputs(name, MIXED)
    length = inputs["input_ids"].shape[1]
    with hired.enable(model, budget=0.25):
        output = model.generate(**inputs, **SETTINGS, num_beams=beams, return_dict_in_generate=True, output_scores=True)
    assert torch.equal(output.sequences[:, :length], inputs["input_ids"])
    assert torch.equal(output.sequences[:, length:], expected(name, inputs, num_beams=beams))
    assert len(output.scores) == 6
    plain = models.shared(name).generate(
        **inputs, **SETTINGS, num_beams=beams, return_dict_in_generate=True, output_scores=True
    )
    assert type(output) is type(plain)
    assert output.keys() == plain.keys()


@every_family
@pytest.mark.parametrize("returned", [1, 3])
def test_beams_and_num_return_sequences(name: str, returned: int) -> None:
    model, inputs = fresh(name), pictures.inputs(name, MIXED)
    length = inputs["input_ids"].shape[1]
    given = {"num_beams": 3, "num_return_sequences": returned}
    with hired.enable(model, budget=0.25):
        output = model.generate(**inputs, **SETTINGS, **given)
    assert torch.equal(output[:, :length], inputs["input_ids"].repeat_interleave(returned, 0))
    assert torch.equal(output[:, length:], expected(name, inputs, **given))


@every_family
def test_sampling_returns_the_prompt_for_every_sequence(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)], [(20, 70)]])
    length = inputs["input_ids"].shape[1]
    with hired.enable(model, budget=0.25):
        torch.manual_seed(0)
        output = model.generate(**inputs, **{**SETTINGS, "do_sample": True}, num_return_sequences=2)
    assert torch.equal(output[:, :length], inputs["input_ids"].repeat_interleave(2, 0))
    torch.manual_seed(0)
    assert torch.equal(output[:, length:], expected(name, inputs, do_sample=True, num_return_sequences=2))


@every_family
def test_text_only_passes(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [None, None])
    plain = model.generate(**inputs, **SETTINGS)
    with torch.no_grad(), hired.enable(model, budget=0.25):
        assert torch.equal(model.generate(**inputs, **SETTINGS), plain)
        torch.testing.assert_close(model(**inputs).logits, models.shared(name)(**inputs).logits)
        # Embeddings in place of ids hold no placeholders.
        embeds = model.get_input_embeddings()(inputs["input_ids"])
        ours = model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]).logits
    torch.testing.assert_close(ours, models.shared(name)(**inputs).logits)


@every_family
def test_budget_one_changes_nothing(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, MIXED)
    with hired.enable(model, budget=1.0):
        assert torch.equal(model.generate(**inputs, **SETTINGS), models.shared(name).generate(**inputs, **SETTINGS))


@every_family
def test_inputs_reduced_already_are_not_reduced_again(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, [[(64, 64)]])
    reduced = hired.reduce(model, inputs, 0.5)
    plain = model.generate(**reduced, **SETTINGS)
    with torch.no_grad(), hired.enable(model, budget=0.1):
        assert torch.equal(model.generate(**reduced, **SETTINGS), plain)
        torch.testing.assert_close(model(**reduced).logits, models.shared(name)(**reduced).logits)


# --- forward -----------------------------------------------------------------------------------------------------


@every_family
@pytest.mark.parametrize("side", ["left", "right"])
def test_forward_with_labels(name: str, side: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, MIXED, side=side)
    inputs["labels"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    seen = watch(model)
    with torch.no_grad(), hired.enable(model, budget=0.25):
        output = model(**inputs)
        direct = model.forward(**inputs)
    reduced = hired.reduce(models.shared(name), inputs, 0.25)
    with torch.no_grad():
        other = models.shared(name)(**reduced)
    torch.testing.assert_close(output.logits, other.logits)
    torch.testing.assert_close(direct.logits, other.logits)
    torch.testing.assert_close(output.loss, other.loss)
    assert seen == ["tower", reduced["input_ids"].shape[1]] * 2


@every_family
def test_forward_takes_positional_arguments_as_before(name: str) -> None:
    model, inputs = fresh(name), dict(pictures.inputs(name, [[(64, 64)]]))
    reduced = hired.reduce(models.shared(name), inputs, 0.25)
    ids, pixels = inputs.pop("input_ids"), inputs.pop("pixel_values")
    with torch.no_grad():
        other = models.shared(name)(**reduced).logits
        with hired.enable(model, budget=0.25):
            torch.testing.assert_close(model(ids, pixels, **inputs).logits, other)


# --- Code that cannot be edited ----------------------------------------------------------------------------------


@every_family
def test_pipeline(name: str) -> None:
    model, processor = fresh(name), models.processor(name)
    pipe = pipeline("image-text-to-text", model=model, processor=processor)
    picture, prompt = pictures.noise((64, 64)), "<image>\nwhat?"
    inputs = processor(text=prompt, images=picture, return_tensors="pt")
    seen = watch(model)

    def ask() -> str:
        given = {"max_new_tokens": 6, "do_sample": False}
        return pipe(images=picture, text=prompt, return_full_text=False, generate_kwargs=given)[0]["generated_text"]

    plain = ask()
    assert seen[1] == inputs["input_ids"].shape[1]
    seen.clear()
    with hired.enable(model, budget=0.25):
        answer = ask()
    assert seen[1] == hired.reduce(models.shared(name), inputs, 0.25)["input_ids"].shape[1]
    new = expected(name, inputs, eos_token_id=2)[0]
    assert answer.split() == processor.decode(new, skip_special_tokens=True).split()
    assert answer != plain
    assert ask() == plain


@pytest.mark.skipif(not (WEIGHTS / "model.safetensors").exists(), reason="the package holds no weights yet")
def test_pipeline_of_the_shipped_model() -> None:
    model, processor = hired.load_tiny()
    pipe = pipeline("image-text-to-text", model=model, processor=processor)
    picture = pictures.noise((200, 150))
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What is TOTAL?"}]
    seen = watch(model)
    given = {"max_new_tokens": 4, "do_sample": False}
    with hired.enable(model, budget=0.2):
        answer = pipe(text=[{"role": "user", "content": content}], return_full_text=False, generate_kwargs=given)
    assert isinstance(answer[0]["generated_text"], str)
    reduced = seen[1]
    seen.clear()
    pipe(text=[{"role": "user", "content": content}], return_full_text=False, generate_kwargs=given)
    assert reduced < seen[1]


# --- what the handle counts --------------------------------------------------------------------------------------


@every_family
def test_the_handle_counts_what_was_brought_and_kept(name: str) -> None:
    model, inputs = fresh(name), pictures.inputs(name, MIXED)
    told = hired.reduce(models.shared(name), inputs, 0.25).selection
    once = (len(told), sum(each.tokens_full for each in told), sum(each.tokens_kept for each in told))
    with hired.enable(model, budget=0.25) as handle:
        assert handle.counts == (0, 0, 0)
        model.generate(**inputs, **SETTINGS)
        assert handle.counts == once
        model(**inputs)
        assert handle.counts == tuple(2 * each for each in once)
        model.generate(**pictures.inputs(name, [None]), **SETTINGS)  # text alone
    model.generate(**inputs, **SETTINGS)
    assert handle.counts == tuple(2 * each for each in once)
    assert handle.counts.pictures == 2 * len(told)
    assert handle.counts.tokens_kept < handle.counts.tokens_full


def test_a_budget_that_covers_a_picture_counts_all_of_it() -> None:
    model, inputs = fresh("llava_next"), pictures.inputs("llava_next", [[(64, 64)]])
    [told] = hired.reduce(models.shared("llava_next"), inputs, 10_000).selection
    with hired.enable(model, budget=10_000) as handle:
        model.generate(**inputs, **SETTINGS)
    assert handle.counts == (1, told.tokens_full, told.tokens_full)


def test_under_a_budget_of_one_nothing_is_looked_at_or_counted() -> None:
    model, inputs = fresh("llava_next"), pictures.inputs("llava_next", [[(64, 64)]])
    with hired.enable(model, budget=1) as handle:
        model.generate(**inputs, **SETTINGS)
    assert handle.counts == (0, 0, 0)
    assert hired.reduce(model, inputs, 1).counts.pictures == 1
