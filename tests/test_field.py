"""The field's methods choose what their authors' code chose: golden outputs, one partition, no ties."""

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hired.core.duplicates import without_duplicates
from hired.core.greedy import by_coverage, by_determinant, by_distance
from hired.core.image import Attention, Image
from hired.core.layout import STRUCTURE, Layout
from hired.core.merging import into_nearest, with_neighbours
from hired.core.similarity import cosine
from hired.methods import METHODS
from hired.methods.cdpruner import conditioned, relevance
from hired.methods.globalcom2 import between, combined, tile_shares
from hired.methods.hiprune import HiPrune
from hired.methods.holov import quotas, run_scores
from hired.methods.otprune import transported
from tests.support.golden import FEATURES, Partition, draw, draw_logits

GOLDEN = Path(__file__).parent / "data" / "golden"
TOLD = json.loads((GOLDEN / "methods.json").read_text())
PRINTED = np.load(GOLDEN / "methods.npz")


def cases(method: str) -> Any:
    """A parameter for every case of a method in which float32 and float64 do not differ."""
    names = [name for name, case in TOLD["cases"].items() if case["method"] == method and name not in TOLD["fragile"]]
    assert names
    return pytest.mark.parametrize("name", names)


def given(name: str) -> tuple[dict[str, Any], Partition]:
    case = TOLD["cases"][name]
    return case, draw(case["seed"], case["patches"])


def tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def printed(name: str, what: str = "kept") -> list[int]:
    return [int(value) for value in PRINTED[f"{name}_{what}"]]


def one_partition(patches: int) -> Layout:
    side = round(patches**0.5)
    return Layout.build(
        partition=torch.zeros(patches, dtype=torch.int64),
        cell=torch.arange(patches),
        line=torch.full((patches,), STRUCTURE),
        cells=(side, side),
        boxes=((0.0, 0.0, 336.0, 336.0),),
        size=(336, 336),
    )


def image(part: Partition, total: int) -> Image:
    """The drawn partition as a method sees it."""
    rows = tensor(part.attention)
    return Image(
        one_partition(rows.shape[-1] - 1),
        Attention(
            last=rows[None, :, 0, 1:],
            received=rows.mean(1)[None, :, 1:],
            middle=tensor(part.middle).mean(1)[None, :, 1:],
            keys=tensor(part.keys)[None, :, 1:].transpose(-1, -2),
        ),
        total,
        "drop",
        states=tensor(part.features)[1:],
        features=tensor(part.projected),
    )


@pytest.mark.parametrize("name", TOLD["draws"])
def test_draws_are_those_the_code_ran_on(name: str) -> None:
    part = draw(*map(int, name.split("_")))
    for array, total in TOLD["draws"][name].items():
        assert float(np.abs(getattr(part, array).astype(np.float64)).sum()) == pytest.approx(total, abs=1e-3)


@cases("scope")
def test_scope(name: str) -> None:
    case, part = given(name)
    seen = image(part, case["keep"])
    assert METHODS["scope"]().select(seen).tolist() == printed(name)
    scores = seen.attention.last.sum(1)[0]  # type: ignore[union-attr]
    assert by_coverage(scores, cosine(seen.states), case["keep"]).tolist() == printed(name, "order")  # type: ignore[arg-type]


@cases("divprune")
def test_divprune(name: str) -> None:
    case, part = given(name)
    assert METHODS["divprune"]().select(image(part, case["keep"])).tolist() == printed(name)
    assert by_distance(1 - cosine(tensor(part.projected)), case["keep"]).tolist() == printed(name, "order")


@cases("vispruner")
def test_vispruner(name: str) -> None:
    case, part = given(name)
    method = METHODS["vispruner"](important=case["important_ratio"])  # type: ignore[call-arg]
    assert method.select(image(part, case["keep"])).tolist() == printed(name)


@cases("otprune")
def test_otprune(name: str) -> None:
    case, part = given(name)
    assert METHODS["otprune"]().select(image(part, case["keep"])).tolist() == printed(name)
    order = by_determinant(transported(tensor(part.projected)), case["keep"])
    assert order.tolist() == printed(name, "order")


@cases("cdpruner")
def test_cdpruner_in_the_authors_space(name: str) -> None:
    """Relevance is theirs, of image and text embeddings of one space; which space is ours to choose."""
    case, part = given(name)
    relevant = relevance(tensor(part.image_embeds), tensor(part.text_embeds))
    kernel = conditioned(cosine(tensor(part.projected)), relevant)
    assert sorted(by_determinant(kernel, case["keep"]).tolist()) == printed(name)


@cases("visionzip")
def test_visionzip(name: str) -> None:
    case, part = given(name)
    dominant, anchors = printed(name), printed(name, "targets")
    seen = image(part, len(dominant) + len(anchors))
    method = METHODS["visionzip"](contextual=len(anchors) / seen.total)  # type: ignore[call-arg]
    kept = method.select(seen)
    assert kept.tolist() == sorted(dominant + anchors)
    made = method.merge(seen, kept) @ tensor(part.features)[1:]  # type: ignore[attr-defined]
    place = [kept.tolist().index(anchor) for anchor in anchors]
    torch.testing.assert_close(made[place, :8], tensor(PRINTED[f"{name}_tokens"]), atol=1e-4, rtol=1e-4)
    place = [kept.tolist().index(token) for token in dominant]
    assert torch.equal(made[place], tensor(part.features)[1:][dominant])
    assert case["keep"] == seen.total + 1  # theirs counts the CLS token


def prumerge_inputs(part: Partition) -> tuple[Tensor, Tensor]:
    """(attention of the authors' one head, keys), of the patches."""
    query, key = tensor(part.queries_last).double(), tensor(part.keys_last).double()
    rows = (query @ key.T * FEATURES**-0.5).softmax(-1)
    return rows[0, 1:].float(), key[1:].float()


@pytest.mark.parametrize("method", ["prumerge", "prumergeplus"])
def test_prumerge_takes_up_what_the_authors_do(method: str) -> None:
    names = [name for name, case in TOLD["cases"].items() if case["method"] == method and case["variant"] != "eighth"]
    assert names
    for name in names:
        case, part = given(name)
        scores, keys = prumerge_inputs(part)
        kept = torch.tensor(printed(name, "order"), dtype=torch.int64)
        top = scores.argsort(descending=True)[: case["top"]]
        assert kept[: case["top"]].tolist() == top.tolist()
        features = tensor(part.features)[1:]
        everything = torch.ones(len(scores), dtype=torch.bool)
        made = with_neighbours(scores, keys, kept, everything) @ features
        extra = (scores.index_fill(0, kept, 0.0)[None]) @ features
        theirs = tensor(PRINTED[f"{name}_tokens"])
        torch.testing.assert_close(torch.cat((made, extra))[:, :8], theirs, atol=1e-4, rtol=1e-4)


def test_prumerge_makes_the_last_token_of_the_rest() -> None:
    seen = image(draw(0, 144), 17)
    method = METHODS["prumerge"]()
    kept = method.select(seen)
    weights = method.merge(seen, kept)  # type: ignore[attr-defined]
    scores = seen.attention.last.mean(1)[0]  # type: ignore[union-attr]
    order = scores.argsort(descending=True)
    assert kept.tolist() == sorted(order[:17].tolist())
    rest = weights[kept.tolist().index(int(order[16]))]
    torch.testing.assert_close(rest, scores.index_fill(0, order[:16], 0.0))
    assert (weights[[kept.tolist().index(int(token)) for token in order[:16]]] > 0).sum(1).tolist() == [33] * 16


@cases("holov")
def test_holov(name: str) -> None:
    case, part = given(name)
    seen = image(part, case["keep"])
    sizes = [len(run) for run in np.array_split(np.arange(case["patches"]), case["runs"])]
    scores = seen.attention.last.mean(1)[0]  # type: ignore[union-attr]
    weights = run_scores(scores, tensor(part.projected), sizes)
    if case["padded"]:  # what did not fit was lost there
        return
    assert quotas(weights, torch.tensor(sizes), case["keep"]).tolist() == printed(name, "allocated")
    assert METHODS["holov"]().select(seen).tolist() == printed(name)


def wraps(tokens: list[int], side: int) -> bool:
    """Whether any of the tokens is at the left or right edge, where the authors' neighbours are in another row."""
    return any(token % side in (0, side - 1) or token // side in (0, side - 1) for token in tokens)


@cases("hiprune")
def test_hiprune(name: str) -> None:
    case, part = given(name)
    seen = image(part, case["keep"])
    count = round(case["keep"] * case["alpha"] / 5)
    anchors = seen.attention.middle.sum(1)[0].argsort(descending=True)[:count].tolist()  # type: ignore[union-attr]
    kept = HiPrune(anchors=case["alpha"]).select(seen).tolist()
    if wraps(anchors, 24):
        assert len(set(kept) ^ set(printed(name))) <= 2 * count
    else:
        assert kept == printed(name)


def test_hiprune_is_compared_in_some_cases() -> None:
    names = [name for name, case in TOLD["cases"].items() if case["method"] == "hiprune"]
    whole = 0
    for name in names:
        case, part = given(name)
        middle = tensor(part.middle).mean(1)[:, 1:].sum(0)
        whole += not wraps(middle.argsort(descending=True)[: round(case["keep"] * case["alpha"] / 5)].tolist(), 24)
    assert whole >= 3


@cases("globalcom2")
def test_globalcom2_quotas_and_scores(name: str) -> None:
    """Shares of the tiles, and the order of tokens inside a tile, on the authors' logits."""
    case, patches = TOLD["cases"][name], TOLD["cases"][name]["patches"]
    columns, rows = case["grid"]
    logits = tensor(draw_logits(case["seed"], patches, 1 + rows * columns))
    side = round(patches**0.5)
    if side % rows or side % columns:  # theirs gives the remainder to the last cell
        return
    shares = torch.eye(rows, dtype=torch.float64).repeat_interleave(side // rows, 1)
    across = torch.eye(columns, dtype=torch.float64).repeat_interleave(side // columns, 1)
    more = tile_shares(logits[0].view(side, side), shares, across, 10.0)
    expected = torch.tensor(case["scales"], dtype=torch.float64)
    torch.testing.assert_close((case["ratio"] * (1 + more)).clamp(max=1), expected, atol=1e-6, rtol=1e-5)
    if case["variant"] != "grid0":  # unpadding moves their grid of places
        return
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    places = [
        torch.stack(((y + r * side) / rows, (x + c * side) / columns)).flatten(1)
        for r in range(rows)
        for c in range(columns)
    ]
    seen = between(logits[0].view(side, side), torch.stack(places).float())
    partition = torch.arange(1, 1 + rows * columns).repeat_interleave(patches)
    scores = combined(logits[1:].flatten(), seen.flatten(), partition, 1 + rows * columns).view(-1, patches)
    mask = np.unpackbits(PRINTED[f"{name}_mask"], axis=-1)[:, :patches].astype(bool)
    for tile, kept in enumerate(case["kept"][1:]):
        assert sorted(scores[tile].argsort(descending=True)[:kept].tolist()) == np.flatnonzero(mask[1 + tile]).tolist()


def test_duplicates_go_first() -> None:
    """Pairs of twins: one of each is left."""
    rows = torch.eye(8).repeat_interleave(2, 0)
    left = without_duplicates(cosine(rows), torch.arange(16), 8)
    assert sorted(token // 2 for token in left.tolist()) == list(range(8))


def test_greedy_choices_go_on_where_nothing_is_left_to_gain() -> None:
    """More tokens than the kernel has rank, and tokens of no weight: still every token once."""
    same = torch.ones(9, 9)
    for order in (by_determinant(same, 9), by_coverage(torch.zeros(9), same, 9), by_distance(1 - same, 9)):
        assert sorted(order.tolist()) == list(range(9))


def test_merging_keeps_what_nothing_goes_into() -> None:
    keys = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    kept, anchors = torch.tensor([0, 2, 5]), torch.tensor([False, False, True, False, False, True])
    weights = into_nearest(keys, kept, anchors, torch.zeros(6, dtype=torch.bool))
    assert torch.equal(weights, torch.eye(6)[kept])


def test_shares_of_runs_are_met_where_some_are_full() -> None:
    sizes = torch.tensor([2, 3, 9])
    for total in range(1, 15):
        given_ = quotas(torch.tensor([9.0, 1.0, 0.5]), sizes, total)
        assert int(given_.sum()) == total
        assert bool((given_ <= sizes).all())
        assert list(accumulate(given_.tolist()))[-1] == total
