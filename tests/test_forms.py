"""The pages: the same seed draws the same page, answers are right, each task shows what it says it does."""

import hashlib
import re
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from hired import forms
from hired.errors import BudgetError
from hired.evaluation import Settings
from hired.evaluation.samples import samples
from hired.forms.geometry import best_grid, grid_mapping

Box = tuple[float, float, float, float]
SEEDS = [*range(40), *forms.EVAL_SEEDS[:40]]
NEW = ("large", "shapes", "layout", "mixed")
each_task = pytest.mark.parametrize("task", forms.TASKS)
each_new_task = pytest.mark.parametrize("task", NEW)


def tiles(page: forms.Page) -> list[Box]:
    """Boxes of the tiles, in pixels of the page."""
    grid = best_grid(*page.image.size)
    fit, left, top = grid_mapping(*page.image.size, grid)
    return [
        ((c * 96 - left) / fit, (r * 96 - top) / fit, ((c + 1) * 96 - left) / fit, ((r + 1) * 96 - top) / fit)
        for r in range(grid[0])
        for c in range(grid[1])
    ]


def inside(box: Box, tile: Box) -> float:
    """Share of a box that a tile shows."""
    w = min(box[2], tile[2]) - max(box[0], tile[0])
    h = min(box[3], tile[3]) - max(box[1], tile[1])
    return max(w, 0) * max(h, 0) / ((box[2] - box[0]) * (box[3] - box[1]))


@each_task
def test_a_seed_draws_the_same_page(task: forms.Task) -> None:
    one, two, other = forms.page(7, task=task), forms.page(7, task=task), forms.page(8, task=task)
    assert one.image.tobytes() == two.image.tobytes()
    assert (one.fields, one.things, one.questions) == (two.fields, two.things, two.questions)
    assert one.image.tobytes() != other.image.tobytes()


def test_tasks_of_one_seed_have_nothing_in_common() -> None:
    assert len({forms.page(3, task=task).image.size for task in forms.TASKS}) > 3


PAGES = {"forms": "a1cf5d57a4e06b06", "dense": "10cb4cc3d462cacf"}


@pytest.mark.parametrize("task", PAGES)
def test_small_print_is_what_it_has_been(task: forms.Task) -> None:
    """What is on the pages of the demo and of past measurements; pixels depend on the version of Pillow."""
    seeds = [*range(4), *forms.EVAL_SEEDS[:4], *forms.DEMO_SEEDS[:4]]
    told = repr([[(f.key, f.value) for f in forms.page(seed, task=task).fields] for seed in seeds])
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == PAGES[task]


@each_task
def test_every_box_lies_on_the_page_and_every_answer_is_short(task: forms.Task) -> None:
    for seed in SEEDS:
        page = forms.page(seed, task=task)
        assert page.questions
        assert all(box in page.ink for q in page.questions for box in q.boxes)
        for x0, y0, x1, y1 in (*page.ink, *(box for field in page.fields for box in field.digits)):
            assert -1 <= x0 < x1 <= page.image.width + 1
            assert -1 <= y0 < y1 <= page.image.height + 1
        for question in page.questions:
            assert re.fullmatch(r"\d{1,4}|[A-Z]+|[a-z]+( [a-z]+)?", question.answer)
            assert question.text.endswith("?")


@each_task
def test_no_question_has_two_answers(task: forms.Task) -> None:
    for seed in SEEDS:
        texts = [q.text for q in forms.page(seed, task=task).questions]
        assert len(set(texts)) == len(texts)


@each_task
def test_values_are_asked_by_their_label(task: forms.Task) -> None:
    for seed in SEEDS:
        page = forms.page(seed, task=task)
        answers = {q.text: q.answer for q in page.questions}
        for i, field in enumerate(page.fields):
            assert answers[page.question(i)] == field.value
            assert len(field.digits) == len(field.value)


@pytest.mark.parametrize("task", ["shapes", "mixed", "layout"])
def test_answers_about_shapes_are_right(task: forms.Task) -> None:
    """Worked out again from the list of what was drawn."""
    asked = 0
    for seed in SEEDS:
        page = forms.page(seed, task=task)
        shapes = [t for t in page.things if t.colour]
        for text, answer, _ in page.questions:
            if m := re.fullmatch(r"What colour is the (\w+)\?", text):
                assert [t.colour for t in shapes if t.name == m[1]] == [answer]
            elif m := re.fullmatch(r"What shape is (\w+)\?", text):
                assert [t.name for t in shapes if t.colour == m[1]] == [answer]
            elif text == "How many shapes?":
                assert int(answer) == len(shapes)
            elif m := re.fullmatch(r"How many (\w+)\?", text):
                assert int(answer) == sum(m[1] in (t.name + "s", t.name + "es") for t in shapes)
            elif m := re.fullmatch(r"Where is the (\w+)\?", text):
                (box,) = [t.box for t in shapes if t.name == m[1]]
                assert answer == ninth((box[0] + box[2]) / page.image.width, (box[1] + box[3]) / page.image.height)
            else:
                continue
            asked += 1
    assert asked > 100


def ninth(x: float, y: float) -> str:
    """Words for a place; coordinates from 0 to 2."""
    rows = "top" if y < 2 / 3 else "bottom" if y > 4 / 3 else ""
    columns = "left" if x < 2 / 3 else "right" if x > 4 / 3 else ""
    return f"{rows} {columns}".strip() or "middle"


def test_neighbours_are_beside_each_other() -> None:
    ways = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "under": (1, 1)}
    asked = 0
    for seed in SEEDS:
        page = forms.page(seed, task="layout")
        for text, answer, boxes in page.questions:
            m = re.fullmatch(r"What is (left of|right of|above|under) the (\w+)\?", text)
            if not m:
                continue
            reference, other = boxes
            axis, sign = ways[m[1]]
            assert sign * (other[axis] + other[axis + 2] - reference[axis] - reference[axis + 2]) > 0
            assert {t.name for t in page.things if t.box == other} == {answer}
            size = page.image.size[1 - axis]
            across = other[1 - axis] + other[3 - axis] - reference[1 - axis] - reference[3 - axis]
            assert abs(across / 2) < size / 3
            asked += 1
    assert asked > 80


def test_tile_borders_cut_large_print_and_the_full_image_shows_it() -> None:
    fields = 0
    for seed in SEEDS:
        page = forms.page(seed, task="large")
        sx, sy = 96 / page.image.width, 96 / page.image.height
        for field in page.fields:
            fields += 1
            for box in field.digits:
                # No tile shows much of any digit, the full image shows digits larger than small print is in a tile.
                assert max(inside(box, tile) for tile in tiles(page)) < 0.7
                assert (box[3] - box[1]) * sy >= 8
            steps = [abs((a[0] + a[2]) - (b[0] + b[2])) / 2 * sx for a, b in pairwise(field.digits)]
            downs = [abs((a[1] + a[3]) - (b[1] + b[3])) / 2 * sy for a, b in pairwise(field.digits)]
            assert min(max(a, b) for a, b in zip(steps, downs, strict=True)) >= 5
    assert fields > 60


def test_tile_borders_cut_large_shapes() -> None:
    for seed in SEEDS:
        page = forms.page(seed, task="large")
        for thing in page.things:
            assert max(inside(thing.box, tile) for tile in tiles(page)) < 0.7


def test_the_full_image_is_too_small_for_small_print() -> None:
    for seed in SEEDS:
        page = forms.page(seed)
        grid = best_grid(*page.image.size)
        for field in page.fields if max(grid) > 1 else ():
            heights = [(box[3] - box[1]) * 96 / page.image.height for box in field.digits]
            widths = [(box[2] - box[0]) * 96 / page.image.width for box in field.digits]
            assert min(*heights, *widths) < 5.5


@each_new_task
def test_mixed_kinds_of_backgrounds(task: forms.Task) -> None:
    """Some light, some dark; none that text could not be read on."""
    corners = [np.asarray(forms.page(seed, task=task).image)[0, 0].mean() for seed in range(40)]
    assert min(corners) < 100 < 160 < max(corners)


def test_mixed_pages_hold_small_and_large() -> None:
    pages = [forms.page(seed, task="mixed") for seed in SEEDS]
    kinds = {q.text.split()[1] for page in pages for q in page.questions}
    assert kinds == {"is", "colour", "shape", "many"}
    cut = [max(inside(f.digits[0], tile) for tile in tiles(page)) < 0.7 for page in pages for f in page.fields]
    assert 0.1 < np.mean(cut) < 0.6


@pytest.mark.parametrize("options", [{"task": "essays"}, {"task": []}, {"fonts": "all"}, {"fonts": None}])
def test_other_values_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(BudgetError):
        forms.page(1, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, True, 1.5, "1"])
def test_other_seeds_are_refused(seed: object) -> None:
    with pytest.raises(BudgetError):
        forms.page(seed)  # type: ignore[arg-type]


@each_task
def test_every_task_is_measured_on_all_its_kinds_of_questions(task: forms.Task) -> None:
    found = samples(Settings(task=task, limit=60))
    kinds: set[str] = set()
    for sample in found:
        page = forms.page(sample.seed, task=task)
        assert (sample.question, sample.answer) in {(q.text, q.answer) for q in page.questions}
        assert sample.ink == page.ink
        kinds |= {" ".join(q.text.split()[:2]) for q in page.questions}
    assert {" ".join(sample.question.split()[:2]) for sample in found} == kinds
