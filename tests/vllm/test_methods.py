"""Every method that can be served keeps the library's tokens and gives its answers."""

from typing import Any

import pytest

from hired.methods import METHODS
from hired.vllm.settings import SERVABLE
from tests.vllm.support import Case, answer, generate, model_of, noisy, request, watched

BUDGET = 0.3
SIZES = [(64, 64), (90, 31), (30, 80), (20, 20)]
FEW = ("visionzip", "prumerge+", "divprune", "scope")
"""One that merges by keys and one by attention, one that reads features, one that reads encoder outputs."""


def test_those_that_cannot_be_served() -> None:
    assert set(METHODS) - set(SERVABLE) == {"published", "overview", "cdpruner"}


def clear(llm: Any) -> None:
    """Forgets every picture: a method that is changed in place is not in the caches' keys."""
    llm.llm_engine.reset_mm_cache()
    llm.reset_prefix_cache()
    llm.llm_engine.reset_encoder_cache()


@pytest.mark.parametrize(
    ("name", "methods"),
    [("llava_next", SERVABLE), ("llava", (*FEW, "hiprune")), ("llava_onevision", (*FEW, "hiprune"))],
)
def test_same_kept_tokens_and_answers_as_the_library(
    engine: Any, cases: dict[str, Case], name: str, methods: tuple[str, ...]
) -> None:
    case = cases[name]
    llm = engine(case, {"budget": BUDGET, "method": methods[0]})
    pruned = model_of(llm).pruned
    assert pruned.method == METHODS[methods[0]]()
    # Several pictures of a prompt and a request with a budget of its own go through the same batch.
    pictures = noisy([*SIZES, (190, 190)] if name == "llava_onevision" else SIZES)
    asked: list[tuple[list[Any], str, float | None]] = [([picture], "what is a?", None) for picture in pictures]
    asked += [(pictures[:2], "b:", 0.2), ([pictures[0]], "total c?", 1.0)][: 2 if BUDGET == 1 else 1]
    for method in methods:
        pruned.method = METHODS[method]()
        clear(llm)
        expected = [answer(case, each, text, own or BUDGET, method=method) for each, text, own in asked]
        with watched(pruned) as kept:
            found = generate(llm, [request(case, *each) for each in asked])
        rows = {tuple(entry.rows) for _, reduced in expected for entry in reduced.selection}
        assert {tuple(each) for each in kept if each is not None} == rows, method
        assert found == [tokens for tokens, _ in expected], method
