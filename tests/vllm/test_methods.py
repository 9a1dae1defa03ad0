"""Every method that can be served keeps the library's tokens, embeds them likewise and gives its answers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hired.core.budget import Budget
from hired.costs.shapes import config_of
from hired.methods import METHODS
from hired.vllm.encoding import PrunedEncoder
from hired.vllm.geometry import geometry_of
from hired.vllm.settings import SERVABLE, Settings
from tests.vllm.support import Case, answer, clear, close, features_of, generate, model_of, noisy, request, watched

BUDGETS: dict[str, float] = {
    "llava_next": 40,
    **dict.fromkeys(("llava", "llava_onevision", "internvl", "qwen2_5_vl", "qwen3_vl"), 0.3),
}
"""Under 40 tokens the smallest picture stays whole beside others that are cut."""
SIZES = [(64, 64), (90, 31), (20, 20)]


def test_those_that_cannot_be_served() -> None:
    assert set(METHODS) - set(SERVABLE) == {"published", "overview", "cdpruner"}


def test_layers_are_counted_as_the_whole_encoder_has_them() -> None:
    """vLLM loads the layers that are used only; the one half-way stays where it is."""
    config = config_of("llava-1.5-7b")
    layers = [SimpleNamespace(self_attn=n) for n in range(23)]
    model = SimpleNamespace(attends="self_attn", encoder_layers=lambda: layers)
    scheduler = SimpleNamespace(max_num_encoder_input_tokens=576, max_num_seqs=1)
    encoder = PrunedEncoder(model, Settings(Budget.parse(0.2)), geometry_of(config), scheduler).encoder
    assert (encoder.first, encoder.middle, encoder.last) == (0, 9, 22)


@pytest.mark.parametrize("name", list(BUDGETS))
def test_same_tokens_embeddings_and_answers_as_the_library(
    engine: Any, cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case, budget = cases[name], BUDGETS[name]
    llm = engine(case, {"budget": budget, "method": SERVABLE[-1]})
    pruned = model_of(llm).pruned
    assert pruned.method == METHODS[SERVABLE[-1]]()
    made: list[torch.Tensor] = []
    embed = pruned.embed

    def spy(*given: Any) -> list[torch.Tensor]:
        found: list[torch.Tensor] = embed(*given)
        made.extend(found)
        return found

    monkeypatch.setattr(pruned, "embed", spy)
    pictures = noisy([*SIZES[:2], (190, 190)] if name == "llava_onevision" else SIZES)
    for method in SERVABLE:
        pruned.method = METHODS[method]()
        clear(llm)
        made.clear()
        tokens, reduced = answer(case, pictures, "what is a?", budget, method=method)
        with watched(pruned) as kept:
            assert generate(llm, [request(case, pictures, "what is a?")]) == [tokens], method
        entries = reduced.selection
        cut = [entry.rows if entry.tokens_kept < entry.tokens_full else None for entry in entries]
        assert kept == [None if rows is None else list(rows) for rows in cut], method
        assert (name == "llava_next") == (None in kept)
        expected = features_of(reduced)
        close(torch.cat(made)[:, : expected.shape[1]], expected)  # behind them, Qwen-VL's rows and columns
