"""`hired.agreement`: what it says is what single calls of `hired.reduce` and `generate` give."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hired
from hired import greedy, prompts
from hired.agreeing import Sample, Settings, answering
from hired.agreeing.answering import Answered, Outcome, answered
from hired.agreeing.likeness import correct, similarity
from hired.agreeing.plot import figure
from hired.agreeing.rows import UNTOUCHED, Row, make_rows, smallest
from hired.agreeing.samples import by_picture, samples_of
from hired.agreeing.words import conclusion, table
from hired.errors import BudgetError, InputsError
from hired.families import family_of
from hired.intervals import bootstrap
from hired.methods import METHODS
from tests.support import models
from tests.support.pictures import noise

FAMILIES = ("llava_next", "llava", "aya_vision", "qwen2_5_vl", "gemma3", "idefics3", "llava_onevision", "lfm2_vl")
"""With and without a CLS token, with mergers, tagged tiles, M-RoPE, bidirectional masks and convolutions."""
BUDGETS = (0.5, 5)
CHOICES = ("hired", "scope", "cdpruner", "random")
TEXTS = st.text(alphabet="abé ", max_size=12)


def samples(name: str) -> list[Sample]:
    one, other = (noise(size, seed) for seed, size in enumerate(models.ALL[name].sizes[:2]))
    return [Sample(one, "what?", (), "one"), Sample(one, "a b c:", ("x",), "one"), Sample(other, "b?", (), "other")]


def asked(name: str, sample: Sample) -> Any:
    model, processor = models.shared(name), models.processor(name)
    return prompts.inputs(model, processor, [prompts.prompt(processor, sample.question)], [sample.load()])


def reduced(name: str, sample: Sample, method: Any, budget: float, inputs: Any) -> Any:
    return hired.reduce(models.shared(name), inputs, budget, method=method, images=[sample.load()])


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_those_of_single_calls(name: str) -> None:
    model, processor = models.shared(name), models.processor(name)
    settings = Settings(BUDGETS, CHOICES, max_new_tokens=4)
    found = [one for some in by_picture(samples(name)).values() for one in answered(model, processor, some, settings)]
    for each in found:
        inputs = asked(name, each.sample)
        ids = greedy.generate(model, processor, inputs, 4)[:, inputs["input_ids"].shape[1] :]
        assert each.untouched.answer == greedy.texts(processor, ids)[0]
        for (method, budget), outcome in zip(settings.jobs(), each.reduced, strict=True):
            ready = reduced(name, each.sample, settings.method(method, each.sample.name), budget, inputs)
            new = greedy.generate(model, processor, ready, 4)[:, ready["input_ids"].shape[1] :]
            assert outcome.answer == greedy.texts(processor, new)[0]
            assert outcome.tokens == ready.selection[0].tokens_kept


@pytest.mark.parametrize("name", FAMILIES)
def test_log_probabilities_are_those_of_one_token_after_the_other(name: str) -> None:
    model, processor = models.shared(name), models.processor(name)
    sample, settings = samples(name)[1], Settings((0.4,), ("hired",), max_new_tokens=4)
    (each,) = answered(model, processor, [sample], settings)
    inputs = asked(name, sample)
    start = inputs["input_ids"].shape[1]
    ids = greedy.generate(model, processor, inputs, 4)[0, start:].tolist()
    stop = family_of(model).image_token(model)
    ids = ids[: ids.index(stop) + 1] if stop in ids else ids
    for ready, outcome in ((inputs, each.untouched), (reduced(name, sample, "hired", 0.4, inputs), each.reduced[0])):
        told = [step_of(model, ready, ids[:place])[token] for place, token in enumerate(ids)]
        assert outcome.log_probability == pytest.approx(sum(told) / len(told), abs=2e-4)


def step_of(model: Any, ready: Any, before: list[int]) -> list[float]:
    """Log-probabilities of the token behind `before`, by `generate` made to say that first."""
    length = ready["input_ids"].shape[1]

    def allowed(batch: int, ids: torch.Tensor) -> list[int]:
        place = ids.shape[0] - length
        return [before[place]] if place < len(before) else list(range(model.get_input_embeddings().num_embeddings))

    out = model.generate(
        **ready, max_new_tokens=len(before) + 1, min_new_tokens=len(before) + 1, do_sample=False, eos_token_id=None,
        prefix_allowed_tokens_fn=allowed, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    found: list[float] = out.logits[-1][0].float().log_softmax(-1).tolist()
    return found


def test_a_picture_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = answering.encode_for

    def spy(*args: Any) -> Any:
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(answering, "encode_for", spy)
    seen: list[int] = []
    model, processor = models.shared("llava_next"), models.processor("llava_next")
    config = model.generation_config
    rows = hired.agreement(
        model, processor, samples("llava_next"), BUDGETS, CHOICES, max_new_tokens=3, repeats=1, advance=seen.append
    )
    assert len(calls) == 2
    assert seen == [1, 1]
    assert model.generation_config is config
    assert [(row["method"], row["budget"]) for row in rows] == [
        (UNTOUCHED, 1),
        *((method, budget) for method in CHOICES for budget in BUDGETS),
    ]
    for row in rows:
        assert (row["n"], row["pictures"], row["known"]) == (3, 2, 1)
        assert row["ttft_s"] and row["tokens_per_s"] and row["kv_cache_bytes"]  # noqa: PT018
        assert row["exact_interval"][0] <= row["exact"] <= row["exact_interval"][1]
        assert row["similar_interval"][0] <= row["similar"] <= row["similar_interval"][1]
        assert row["log_probability"] < 0
        assert row["accuracy"] in (0, 1)
    assert (rows[0]["exact"], rows[0]["similar"], rows[0]["share"]) == (1, 1, 1)
    assert rows[1]["kv_cache_bytes"] < rows[0]["kv_cache_bytes"]  # type: ignore[operator]


def test_tuples_and_pictures_of_ones_own() -> None:
    picture, other = noise((60, 40)), noise((40, 60))
    found = samples_of([(picture, "a?"), (picture, "b?", "x"), (other, "c?", ["x", "y"]), (other, "d?", None)])
    assert [(each.name, each.answers) for each in found] == [
        ("picture 1", ()), ("picture 1", ("x",)), ("picture 2", ("x", "y")), ("picture 2", ()),
    ]  # fmt: skip
    model, processor = models.shared("llava"), models.processor("llava")
    own = METHODS["uniform"]()
    rows = hired.agreement(model, processor, found, (1, 0.5), (own,), max_new_tokens=2, repeats=0)
    assert [(row["method"], row["budget"]) for row in rows] == [(UNTOUCHED, 1), ("uniform", 0.5)]
    assert rows[0]["ttft_s"] is None
    assert "first token, s" not in table(rows)[0]


def test_a_budget_that_keeps_everything_is_the_untouched_model() -> None:
    model, processor = models.shared("llava"), models.processor("llava")
    _, row = hired.agreement(model, processor, samples("llava"), (10_000,), max_new_tokens=3, repeats=0)
    assert (row["exact"], row["share"]) == (1, 1)
    assert smallest([row], 0.5) is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "no samples"),
        ([("a.png", "what?")], "PIL picture"),
        ([(noise((20, 20)),)], "(image, question)"),
        ([(noise((20, 20)), " ")], "must be a text"),
        ([(noise((20, 20)), "a?", 4)], "answer of sample 1"),
        ([noise((20, 20))], "(image, question)"),
    ],
)
def test_samples_that_are_none(given: Any, words: str) -> None:
    with pytest.raises(InputsError, match=words.replace("(", r"\(").replace(")", r"\)")):
        hired.agreement(models.shared("llava"), models.processor("llava"), given)


@pytest.mark.parametrize(
    "options",
    [
        {"budgets": ()},
        {"methods": ()},
        {"budgets": (0,)},
        {"budgets": ("x",)},
        {"methods": ("magic",)},
        {"methods": ("uniform", METHODS["uniform"]())},
        {"alpha": 3},
        {"newlines": "some"},
        {"positions": "none"},
        {"variant": "best"},
        {"max_new_tokens": 0},
        {"repeats": -1},
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(BudgetError):
        hired.agreement(None, None, [(noise((20, 20)), "a?")], **options)


def test_what_is_wrong_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = models.ALL["llava"].model(), models.processor("llava")
    given = [(noise((30, 30)), "a?")]
    monkeypatch.setattr(answering, "encode_for", None)
    with pytest.raises(BudgetError, match=r"picture 1: .*leaves no token"):
        hired.agreement(model, processor, given, (0.01,))
    with pytest.raises(InputsError, match="stands for a picture"):
        hired.agreement(model, processor, [(given[0][0], "<image>?")])
    with pytest.raises(InputsError, match="training mode"):
        hired.agreement(model.train(), processor, given)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import hired, hired.agreeing, hired.checking, sys; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert callable(hired.agreement)


def distance(one: str, other: str) -> int:
    """The edit distance as it is defined."""
    if not one or not other:
        return len(one) + len(other)
    return min(
        distance(one[1:], other) + 1,
        distance(one, other[1:]) + 1,
        distance(one[1:], other[1:]) + (one[0] != other[0]),
    )


@given(TEXTS.map(lambda text: text[:5]), TEXTS.map(lambda text: text[:6]))
def test_similarity_is_one_minus_the_edit_distance(one: str, other: str) -> None:
    longest = max(len(one), len(other), 1)
    assert similarity(one, other) == pytest.approx(1 - distance(one, other) / longest)


@given(TEXTS, TEXTS)
def test_similarity_is_symmetric_and_from_0_to_1(one: str, other: str) -> None:
    assert 0 <= similarity(one, other) == similarity(other, one) <= 1
    assert (similarity(one, other) == 1) == (one == other)


def test_right_answers() -> None:
    assert correct(" Total  4172. ", ["x", "total 4172"])
    assert not correct("4172", ["total 4172"])
    assert not correct("", ())


def test_the_bootstrap_draws_pictures() -> None:
    values = np.random.default_rng(1).normal(size=400).tolist()
    low, high = bootstrap(values, range(400))
    middle, spread = np.mean(values), 1.96 * np.std(values) / math.sqrt(400)
    assert (low, high) == pytest.approx((middle - spread, middle + spread), abs=0.02)
    assert bootstrap(values, range(400)) == (low, high)
    doubled = bootstrap(values * 2, [*range(400)] * 2)  # as many pictures: as wide
    assert doubled == pytest.approx((low, high), abs=0.02)
    assert bootstrap([0.0, 1.0], ["a", "a"]) == (0.5, 0.5)


def outcomes(*answers: str) -> tuple[Outcome, ...]:
    return tuple(Outcome(answer, 10 * (place + 1), -1.0) for place, answer in enumerate(answers))


def test_means_and_intervals_by_hand() -> None:
    jobs = [("hired", 0.1), ("hired", 0.2)]
    found = [
        Answered(Sample(noise((9, 9)), "a?", ("yes",), str(place)), Outcome("yes", 100, -0.5), outcomes(answer, "yes"))
        for place, answer in enumerate(["yes", "yea", "no", "yes"])
    ]
    untouched, low, high = make_rows(jobs, found)
    assert (untouched["exact"], untouched["accuracy"], untouched["exact_interval"]) == (1, 1, [1, 1])
    assert (low["exact"], low["accuracy"], low["tokens"], low["share"]) == (0.5, 0.5, 10, 0.1)
    assert low["similar"] == pytest.approx((1 + 2 / 3 + 0 + 1) / 4, abs=1e-4)
    assert high["exact_interval"] == [pytest.approx(0.5101, abs=1e-3), 1.0]  # Wilson's of 4 of 4


def row(method: str, tokens: float, exact: float) -> Row:
    told: Any = {"method": method, "budget": tokens / 100, "tokens": tokens, "share": tokens / 100, "exact": exact}
    return {**told, "similar": exact, "exact_interval": [exact - 0.1, exact], "similar_interval": [exact, exact]}  # type: ignore[return-value]


def test_the_smallest_budget_that_keeps_what_is_asked() -> None:
    rows = [row(UNTOUCHED, 100, 1), row("a", 40, 1), row("a", 20, 0.9), row("a", 10, 0.99), row("b", 40, 0.99)]
    assert smallest(rows, 0.95) == rows[1]  # a larger budget than 10 does not keep it; of 40, the more alike
    assert smallest(rows, 0.9) == rows[3]
    assert smallest(rows[:3], 0.95, "similar") == rows[1]
    assert smallest(rows[:1] + rows[2:3], 0.95) is None
    told = conclusion(rows, rows[1], 0.95, "exact")
    assert told[1].strip() == 'inputs = hired.reduce(model, inputs, budget=0.4, method="a")'
    assert "more pictures" in told[-1]
    assert "b at 0.4 comes to 99.0 %" in conclusion([rows[0], rows[4]], None, 0.995, "exact")[0]


def test_the_plot_has_a_line_a_method_and_a_second_axis_for_time() -> None:
    pytest.importorskip("matplotlib")
    rows = [row(UNTOUCHED, 100, 1), row("a", 40, 1), row("a", 5, 0.2), row("b", 40, 0.5)]
    timed: Any = [{**each, "ttft_s": each["tokens"] / 10} for each in rows]
    whole = figure(timed, "title with $", 0.95, "exact")
    left, right = whole.axes
    assert [line.get_label() for line in left.lines if not line.get_label().startswith("_")][:2] == ["a", "b"]
    assert right.get_ylabel() == "time to first token, s"
    untimed: Any = [{**each, "ttft_s": None} for each in rows]
    assert len(figure(untimed, "", 0.95, "similar").axes) == 1
