"""Two ranks, each with half of the encoder's heads: both must keep the same tokens, those of the library."""

from typing import Any

import pytest
import torch

from tests.vllm.support import Case, answer, clear, features_of, generate, noisy, request

BUDGET = 0.3
ASKED = [((64, 64), "what is a?"), ((30, 80), "b:"), ((90, 31), "total c?"), ((20, 20), "d")]


def watch(model: Any) -> None:
    """In a worker: collects what its rank keeps, and what it makes of that."""
    model.kept, select = [], model.pruned.select
    model.made, embed = [], model.pruned.embed

    def spy_select(*args: Any) -> Any:
        rows = select(*args)
        model.kept.extend(each.tolist() for each in rows)
        return rows

    def spy_embed(*args: Any) -> Any:
        found = embed(*args)
        model.made.extend(each.tolist() for each in found)
        return found

    model.pruned.select, model.pruned.embed = spy_select, spy_embed


def without_gathering(model: Any) -> None:
    """In a worker: takes the guard away."""
    import hired.vllm.encoding

    hired.vllm.encoding.all_heads = lambda rows, attention: rows


def without_keys(model: Any) -> None:
    """In a worker: gathers everything but keys."""
    import hired.vllm.encoding

    gather = hired.vllm.encoding.all_heads
    hired.vllm.encoding.all_heads = lambda rows, attention: gather(rows, attention) if rows.dim() == 3 else rows


def by_hired(model: Any) -> None:
    """In a worker: keeps tokens by HiRED."""
    from hired.methods import HiRED

    model.pruned.method = HiRED()


def by_visionzip(model: Any) -> None:
    """In a worker: keeps tokens by a method that merges others into them, by their keys."""
    from hired.methods import VisionZip

    model.pruned.method = VisionZip()


def seen(model: Any) -> tuple[list[Any], Any]:
    """In a worker: what was collected since the last call, (kept, embeddings), in the order of what was kept."""
    pairs = sorted(zip(model.kept, model.made, strict=True))
    model.kept.clear()
    model.made.clear()
    return [kept for kept, _ in pairs], [row for _, made in pairs for row in made]


def near(made: Any, others: Any) -> bool:
    return torch.allclose(torch.tensor(made), torch.tensor(others), rtol=1e-4, atol=2e-4)


def test_every_rank_keeps_what_the_library_keeps(engine: Any, cases: dict[str, Case]) -> None:
    case = cases["llava_next"]
    pictures = [noisy([size])[0] for size, _ in ASKED]
    requests = [request(case, [each], question) for each, (_, question) in zip(pictures, ASKED, strict=True)]
    llm = engine(case, {"budget": BUDGET}, tensor_parallel_size=2, distributed_executor_backend="mp")
    llm.apply_model(watch)
    right: dict[str, list[list[int]]] = {}
    for method, by in (("hired", by_hired), ("visionzip", by_visionzip)):
        llm.apply_model(by)
        clear(llm)
        expected = [
            answer(case, [each], question, BUDGET, method=method)
            for each, (_, question) in zip(pictures, ASKED, strict=True)
        ]
        assert generate(llm, requests) == [tokens for tokens, _ in expected]
        reduced = sorted((each for _, each in expected), key=lambda each: each.selection[0].rows)
        rows, features = [each.selection[0].rows for each in reduced], torch.cat([*map(features_of, reduced)]).tolist()
        right[method] = rows
        for kept, made in llm.apply_model(seen):
            assert kept == rows
            assert near(made, features)

    # Without the other rank's heads nothing of the above holds. VisionZip's merging goes by keys, its tokens by rows;
    # on these the ranks agree, as the first one tells them.
    llm.apply_model(without_keys)
    clear(llm)
    generate(llm, requests)
    for kept, made in llm.apply_model(seen):
        assert kept == rows
        assert not near(made, features)
    llm.apply_model(without_gathering)
    clear(llm)
    generate(llm, requests)
    (one, _), (other, _) = llm.apply_model(seen)
    assert one == other != rows
    llm.apply_model(by_hired)
    clear(llm)
    generate(llm, requests)
    (one, _), (other, _) = llm.apply_model(seen)
    assert one == other != right["hired"]


@pytest.mark.parametrize(
    ("name", "mode", "shared"),
    [("qwen2_5_vl", "weights", True), ("qwen2_5_vl", "data", False), ("internvl", "weights", False)],
)
def test_other_encoders(engine: Any, cases: dict[str, Case], name: str, mode: str, shared: bool) -> None:
    """Of several pictures in one sequence every rank has its own heads where they are `shared` out, or all of them."""
    case = cases[name]
    asked = [(noisy([size])[0], question) for size, question in ASKED]
    ranks = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp", "mm_encoder_tp_mode": mode}
    llm = engine(case, {"budget": BUDGET}, **ranks)
    llm.apply_model(watch)
    requests = [request(case, [picture], question) for picture, question in asked]
    expected = [answer(case, [picture], question, BUDGET) for picture, question in asked]
    assert generate(llm, requests) == [tokens for tokens, _ in expected]
    reduced = sorted((each for _, each in expected), key=lambda each: each.selection[0].rows)
    rows, features = [each.selection[0].rows for each in reduced], torch.cat([*map(features_of, reduced)]).tolist()
    for kept, made in llm.apply_model(seen):
        assert kept == rows
        assert near([row[: len(features[0])] for row in made], features)  # behind them, rows and columns
    llm.apply_model(without_gathering)
    clear(llm)
    generate(llm, requests)
    assert [kept == rows for kept, _ in llm.apply_model(seen)] == [not shared] * 2
