"""Our own method: what is new, in one pass; robust where attention says nothing, or the wrong thing."""

import pytest
import torch
from benchmarks.ablation import Variant, planted
from hypothesis import given
from hypothesis import strategies as st

import hired
from hired import forms
from hired.core import novelty as module
from hired.core.detail import odds
from hired.core.image import Attention, Image
from hired.core.layout import Layout
from hired.core.novelty import novelty
from hired.methods.glean import Glean
from hired.reduction import encode, plan
from hired.reduction.select import images
from tests.support.layouts import layout_of


def slow(scores: list[float], states: torch.Tensor) -> list[float]:
    """From the definition."""
    found = []
    for i, score in enumerate(scores):
        above = [j for j, other in enumerate(scores) if other > score or (other == score and j < i)]
        likest = max((float(torch.cosine_similarity(states[i], states[j], dim=0)) for j in above), default=0.0)
        found.append(max(1 - max(likest, 0.0) ** 2, 1e-3))
    return found


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 99), st.sampled_from([1, 7, 1024]))
def test_novelty_is_what_it_says(scores: list[int], seed: int, rows: int) -> None:
    states = torch.randn(len(scores), 5, generator=torch.Generator().manual_seed(seed))
    states[::3] = states[0].clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS", rows)
        got = novelty(torch.tensor(scores, dtype=torch.float32), states)
    assert got.tolist() == pytest.approx(slow([float(score) for score in scores], states), abs=1e-4)


def test_copies_go_last_and_in_order() -> None:
    states = torch.eye(4).repeat(3, 1)
    scores = torch.linspace(2, 1, 12)
    ranked = (scores * novelty(scores, states)).argsort(descending=True)
    assert ranked.tolist() == list(range(12))
    assert novelty(scores, states)[4:].max() < 0.01


def flat(layout: Layout, total: int, seed: int = 0) -> Image:
    """A picture in which attention says nothing, with states of eight kinds."""
    states = torch.eye(8)[torch.randint(8, (layout.tokens_full,), generator=torch.Generator().manual_seed(seed))]
    rows = torch.full((layout.partitions, 2, layout.cells_per_partition), 1 / layout.cells_per_partition)
    return Image(layout, Attention(last=rows), total, "drop", states=states)


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (20, 90)])
def test_where_attention_says_nothing_unlike_tokens_are_kept(size: tuple[int, int]) -> None:
    layout = layout_of(*size)
    image = flat(layout, 8)
    kept = Glean().select(image)
    assert sorted(image.states[kept].argmax(1).tolist()) == list(range(8))  # type: ignore[index]


def test_nothing_at_all_to_go_by() -> None:
    """Attention without mass, states without length: the budget is met all the same."""
    layout = layout_of(64, 64)
    nothing = torch.zeros(layout.partitions, 2, layout.cells_per_partition)
    image = Image(layout, Attention(last=nothing), 9, "drop", states=torch.zeros(layout.tokens_full, 4))
    kept = Glean().select(image).tolist()
    assert len(set(kept)) == 9


def test_a_partition_is_measured_against_itself() -> None:
    """The same attention, scaled in one partition: the same choice."""
    layout = layout_of(96, 64)
    draw = torch.Generator().manual_seed(0)
    rows = torch.rand(layout.partitions, 2, layout.cells_per_partition, generator=draw)
    states = torch.randn(layout.tokens_full, 6, generator=draw)
    scaled = rows.clone()
    scaled[2] *= 0.01
    one, other = (
        Glean().select(Image(layout, Attention(last=each), 20, "drop", states=states)).tolist()
        for each in (rows, scaled)
    )
    assert one == other


def test_sinks_take_one_token_and_move_no_others() -> None:
    """On the trained model: attention sinks on blank paper, planted, change little; a plain ranking they fill."""
    model, processor = hired.load_tiny()
    shared: dict[str, list[float]] = {"glean": [], "ranking": []}
    for seed in forms.DEMO_SEEDS[:6]:
        page = forms.page(seed)
        inputs = processor(text="<image>What?", images=page.image, return_tensors="pt")
        made = plan(model, inputs, 0.1, method="glean")
        (image,) = images(made, encode(made))
        assert image is not None
        struck = planted(image, count=4, mass=0.6, norm=20.0)
        for name, method in (("glean", Glean()), ("ranking", Variant(power=1.0, new="none"))):
            before, after = set(method.select(image).tolist()), set(method.select(struck).tolist())
            assert len(before) == len(after) == image.total
            shared[name].append(len(before & after) / image.total)
    assert min(shared["glean"]) > 0.75
    assert sum(shared["glean"]) > sum(shared["ranking"])


@pytest.mark.parametrize("size", [(64, 64), (96, 10), (70, 50)])
@pytest.mark.parametrize("total", [5, 17])
def test_the_ablation_starts_from_glean(size: tuple[int, int], total: int) -> None:
    layout = layout_of(*size)
    draw = torch.Generator().manual_seed(total)
    rows = torch.rand(layout.partitions, 2, layout.cells_per_partition, generator=draw)
    image = Image(
        layout, Attention(last=rows), total, "drop", states=torch.randn(layout.tokens_full, 6, generator=draw)
    )
    assert Glean().select(image).tolist() == Variant().select(image).tolist()


CUT = (64, 64)
"""A picture that the tiny LLaVA-NeXT cuts into 2 x 2 sub-images of 32 pixels, 4 x 4 patches each."""


def drawn(canvas: torch.Tensor) -> torch.Tensor:
    """(5, 3, 32, 32) partitions of a (64, 64) picture; what the full image shows does not matter."""
    tiles = canvas.view(2, 32, 2, 32).transpose(1, 2).reshape(4, 1, 32, 32).expand(-1, 3, -1, -1)
    return torch.cat((torch.zeros(1, 3, 32, 32), tiles))


def test_what_the_full_image_shows_of_a_page() -> None:
    """Print of single pixels is lost in shrinking, a slow wave is shown, and blank paper has nothing to show."""
    layout = layout_of(*CUT)
    assert layout.grid == (2, 2)
    canvas = torch.zeros(64, 64)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    canvas[:16, :32] = ((y + x) % 2).float()[:16, :32]  # the full image's first row, left half
    canvas[32:, 32:] = 4 * torch.sin(y / 6)[32:, 32:]  # its lower right: waves much longer than the print's
    found, place = odds(drawn(canvas), layout)
    assert found.shape == (17,)
    assert found[16] == 1
    cells = found[:16].view(4, 4)
    assert bool((cells[:2, 0] == 0).all())  # the cells beside these have waves in their neighbourhood
    assert bool((cells[3, 2:] > 2).all())
    assert cells[0, 3] == 0
    assert place.view(4, 4, 4)[1, 0].tolist() == [2, 2, 3, 3]  # the first row of the sub-image at the right


def test_cells_are_found_beneath_by_their_pixels() -> None:
    """An edge in one patch of one sub-image tells of the cell of the full image that shows this place, and of those
    beside it, and of no other."""
    layout = layout_of(*CUT)
    for row in range(8):
        canvas = torch.zeros(64, 64)
        canvas[8 * row : 8 * row + 4, 4:8] = 1.0  # column 0 of 8 patches, row `row`
        cells = odds(drawn(canvas), layout)[0][:16].view(4, 4)
        beside = range(max(0, row // 2 - 1), min(4, row // 2 + 2))
        assert cells.nonzero().tolist() == [[y, x] for y in beside for x in range(2)], row


def test_large_things_bring_the_full_image_back() -> None:
    """The same attention and states: more of the full image where the pixels show large things."""
    layout = layout_of(*CUT)
    draw = torch.Generator().manual_seed(1)
    rows = torch.rand(layout.partitions, 2, layout.cells_per_partition, generator=draw)
    states = torch.randn(layout.tokens_full, 64, generator=draw)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    fine, coarse = ((y + x) % 2).float(), ((y // 12 + x // 12) % 2).float()
    counts = []
    for canvas in (fine, coarse):
        image = Image(layout, Attention(last=rows), 40, "drop", states=states, pixels=drawn(canvas))
        counts.append(int((layout.partition[Glean().select(image)] == 0).sum()))
    assert counts[0] < counts[1]


def test_each_place_is_kept_from_the_view_that_shows_it_better() -> None:
    """Attention says nothing; print at the left and slow waves at the right: sub-images there, the full image here."""
    layout = layout_of(*CUT)
    rows = torch.full((layout.partitions, 2, layout.cells_per_partition), 1 / layout.cells_per_partition)
    states = torch.eye(layout.tokens_full)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    canvas = torch.where(x < 32, (y + x) % 2, 4 * torch.sin(y / 6))
    image = Image(layout, Attention(last=rows), 24, "drop", states=states, pixels=drawn(canvas))
    kept = Glean().select(image)
    full, column = layout.partition[kept] == 0, layout.cell[kept] % 4
    assert int((full & (column == 0)).sum()) == 0
    assert int((full & (column >= 2)).sum()) == 8
    right = layout.partition[kept] % 2 == 0
    assert int((~full & right).sum()) == 0
