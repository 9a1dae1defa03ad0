"""Two ranks, each with half of the encoder's heads: both must keep the same tokens, those of the library."""

from typing import Any

from tests.vllm.support import Case, answer, generate, noisy, request

BUDGET = 0.3
ASKED = [((64, 64), "what is a?"), ((30, 80), "b:"), ((90, 31), "total c?"), ((20, 20), "d")]


def watch(model: Any) -> None:
    """In a worker: collects what its rank keeps."""
    model.kept, select = [], model.pruned.select

    def spy(*args: Any) -> Any:
        rows = select(*args)
        model.kept.extend(None if each is None else each.tolist() for each in rows)
        return rows

    model.pruned.select = spy


def without_gathering(model: Any) -> None:
    """In a worker: takes the guard away."""
    import hired.vllm.encoding

    hired.vllm.encoding.all_heads = lambda rows, attention: rows


def seen(model: Any) -> list[Any]:
    """In a worker: what was collected since the last call."""
    kept, model.kept[:] = list(model.kept), []
    return kept


def test_every_rank_keeps_what_the_library_keeps(engine: Any, cases: dict[str, Case]) -> None:
    case = cases["llava_next"]
    pictures = [noisy([size])[0] for size, _ in ASKED]
    expected = [answer(case, [each], question, BUDGET) for each, (_, question) in zip(pictures, ASKED, strict=True)]
    requests = [request(case, [each], question) for each, (_, question) in zip(pictures, ASKED, strict=True)]
    llm = engine(case, {"budget": BUDGET}, tensor_parallel_size=2, distributed_executor_backend="mp")
    llm.apply_model(watch)
    assert generate(llm, requests) == [tokens for tokens, _ in expected]
    rows = sorted(reduced.selection[0].rows for _, reduced in expected)
    assert [sorted(kept) for kept in llm.apply_model(seen)] == [rows, rows]

    # Without the other rank's heads the ranks disagree: it is the gathering that the above rests on.
    llm.apply_model(without_gathering)
    llm.llm_engine.reset_mm_cache()
    llm.reset_prefix_cache()
    llm.llm_engine.reset_encoder_cache()
    generate(llm, requests)
    one, other = (sorted(kept) for kept in llm.apply_model(seen))
    assert one != other
