"""Seeded pictures with questions: what the small shipped model is trained and measured on.

The same seed always gives the same page, for one version of Pillow and of the fonts. Six tasks:

- ``forms``: tinted paper with one to four lines of small print such as ``TOTAL 4172`` (text touches about a
  twentieth of the tile tokens), which only the tiles can show;
- ``dense``: the same with more text than a fifth of all tokens can hold;
- ``large``: large print and large shapes that tile borders cut, which only the shrunk full image shows whole;
- ``shapes``: colours, kinds and numbers of shapes;
- ``layout``: where things are, and what lies beside them or under the title;
- ``mixed``: small print, large print and shapes on one page, with questions about any of it.

The last four are drawn on paper, gradients and textures. Fonts are those that matplotlib and Pillow ship with, so
nothing is downloaded. matplotlib is an optional dependency and is imported when the first page is drawn.
"""

from __future__ import annotations

import numpy as np

from hired.errors import BudgetError
from hired.forms.backgrounds import worn
from hired.forms.geometry import GRID_SHARES, GRIDS, TILE, best_grid, grid_mapping, shape
from hired.forms.parts import COLOURS, KEYS, SHAPES, TASKS, TITLES, Field, FontSet, Page, Question, Task, Thing
from hired.forms.scenes import SCENES
from hired.forms.small import CUT_SHARE, write
from hired.forms.typefaces import STYLES, Style

__all__ = [
    "COLOURS",
    "CUT_SHARE",
    "DEMO_SEEDS",
    "EVAL_SEEDS",
    "GRIDS",
    "KEYS",
    "SHAPES",
    "TASKS",
    "TILE",
    "TITLES",
    "TRAIN_SEEDS",
    "Field",
    "Page",
    "Question",
    "Task",
    "Thing",
    "best_grid",
    "draw",
    "grid_mapping",
    "page",
    "practice",
]

TRAIN_SEEDS = range(10_000_000_000)
"""Seeds that training may use."""
EVAL_SEEDS = range(10_000_000_000, 10_001_000_000)
"""Seeds for measuring; training never draws from them."""
DEMO_SEEDS = range(20_000_000_000, 20_000_001_000)
"""Seeds for demonstrations; neither training nor measuring draws from them."""

_STREAMS = {"forms": 0, "dense": 1, "practice": 2, "large": 3, "shapes": 4, "layout": 5, "mixed": 6}
"""The random stream of each task: pages of one seed have nothing in common."""


def page(seed: int, *, task: Task = "forms", fonts: FontSet = "train") -> Page:
    """Draw the page of a seed.

    Args:
        seed: Any non-negative integer; see `TRAIN_SEEDS`, `EVAL_SEEDS` and `DEMO_SEEDS`.
        task: One of `TASKS`.
        fonts: ``train``, or ``unseen``: typefaces that training never showed.

    Raises:
        BudgetError: A value that is none of these.
        MissingDependencyError: matplotlib, whose fonts the pages are written with, is not installed, or Pillow was
            built without FreeType.
    """
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise BudgetError(f"seed must be a whole number of at least 0, not {seed!r:.80}")
    if not isinstance(task, str) or task not in TASKS:
        raise BudgetError(f"task must be one of {', '.join(map(repr, TASKS))}, not {task!r:.80}")
    if not isinstance(fonts, str) or fonts not in STYLES:
        raise BudgetError(f"fonts must be 'train' or 'unseen', not {fonts!r:.80}")
    return draw(seed, task, STYLES[fonts])


def draw(seed: int, task: Task, style: Style) -> Page:
    """The page of a seed in any style."""
    rng = np.random.default_rng([seed, _STREAMS[task]])
    if task in SCENES:
        return SCENES[task](rng, int(seed), style)
    shares = np.array(GRID_SHARES)
    if task == "dense":
        shares = shares * [r * c >= 3 for r, c in GRIDS]
    grid = GRIDS[rng.choice(len(GRIDS), p=shares / shares.sum())]
    width, height = shape(rng, grid)
    fit = grid_mapping(width, height, grid)[0]
    area = width * height * fit**2 / TILE**2
    if task == "forms":
        lines = int(np.clip(round(0.65 * area + rng.normal(0, 0.6)), 1, 4))
    else:
        lines = int(np.clip(round(area * rng.uniform(3.2, 4.0)), 3, len(KEYS)))
    return _worn(rng, write(rng, seed, width, height, grid, lines, style), style, fit)


def practice(seed: int, grid: tuple[int, int], lines: int, style: Style = STYLES["train"]) -> Page:
    """A page with a given tile grid and, room permitting, a given number of lines: for training."""
    rng = np.random.default_rng([seed, _STREAMS["practice"]])
    width, height = shape(rng, grid)
    made = write(rng, seed, width, height, grid, lines, style)
    return _worn(rng, made, style, grid_mapping(width, height, grid)[0])


def _worn(rng: np.random.Generator, made: Page, style: Style, fit: float) -> Page:
    """The page as it is, or with traces of wear, as often as its style says."""
    if not style.worn or rng.random() >= style.worn:
        return made
    return Page(worn(rng, made.image, fit), made.fields, made.seed, made.things, made.questions)
