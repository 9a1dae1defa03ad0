"""What each part of `glean` is worth: `ablation.json`, and a table in its page.

python -m benchmarks.ablation          # half an hour on a core

Every variant leaves out or replaces one part. "sinks" plants tokens that attract most of the final layer's attention on
blank places, all alike and of huge norm, as large CLIP encoders have them, before a method chooses.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from benchmarks.leaderboard import MODELS, settings
from torch import Tensor

from hired import files, loading, prompts
from hired.core.choose import in_order, patches
from hired.core.detail import KELL, NEAR
from hired.core.greedy import by_determinant
from hired.core.image import Image
from hired.core.layout import STRUCTURE
from hired.core.novelty import novelty
from hired.core.similarity import cosine
from hired.evaluation.run import evaluate
from hired.machine import machine, versions
from hired.methods import METHODS, Method
from hired.methods.base import final_scores, need
from hired.methods.cdpruner import conditioned
from hired.methods.glean import amplitudes, importance, views

HERE = Path(__file__).parent
FILE = HERE / "ablation.json"
PAGE = HERE.parent / "docs" / "glean.md"
BUDGETS = (0.2, 0.1, 0.05, 0.03)
COLUMNS = (("tiny", "forms"), ("tiny", "large"), ("tiny", "mixed"), ("tiny", "layout"), ("tiny_aya", "forms"))
"""Models and tasks."""


@dataclass(frozen=True)
class Variant:
    """`glean` with its parts as switches; as they stand, it is `glean`.

    Attributes:
        power: exponent of the attention.
        over: what a partition's attention is divided by: "mean", or "nothing".
        views: how the full image's and the sub-images' compare: "odds" for shown over lost, "full" for that on the
            full image's side alone, "ground" for one over the number of sub-images, or a number for the full image's.
        resolved, near: as in `hired.core.detail.odds`.
        new: "all" for novelty over the whole picture, "partition" for inside each partition alone, "none".
    """

    power: float = 0.5
    over: str = "mean"
    views: float | str = "odds"
    resolved: float = KELL
    near: int = NEAR
    new: str = "all"
    name: ClassVar[str] = "variant"
    reads: ClassVar[tuple[str, ...]] = ("last", "states", "pixels")

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        layout, real = image.layout, patches(image.layout)
        part = layout.partition[real]
        scores = final_scores(image)[real]
        if self.over == "mean":
            scores = amplitudes(scores.pow(2 * self.power), part, layout.partitions)
        else:
            scores = scores.pow(self.power)
        if layout.partitions > 1:
            full = part == 0
            if isinstance(self.views, str):
                seen = replace(image, pixels=None) if self.views == "ground" else image
                counts = views(seen, real, self.resolved, self.near)
                scores = scores * (torch.where(full, counts, 1.0) if self.views == "full" else counts)
            else:
                scores = scores * torch.where(full, self.views, 1.0)
        states = need(image.states, "states")[real]
        if self.new == "all":
            scores = scores * novelty(scores, states)
        elif self.new == "partition":
            alone = torch.ones_like(scores)
            for index in range(layout.partitions):
                mine = (part == index).nonzero().flatten()
                if len(mine):
                    alone[mine] = novelty(scores[mine], states[mine])
            scores = scores * alone
        return in_order(real[scores.argsort(descending=True, stable=True)], image)


@dataclass(frozen=True)
class Planted:
    """A method that sees pictures with attention sinks.

    Attributes:
        method: the method.
        count: sinks in every partition.
        mass: share of the partition's attention that they attract together.
        norm: length of their states, in those of an ordinary token.
    """

    method: Method
    count: int = 4
    mass: float = 0.6
    norm: float = 20.0
    name: ClassVar[str] = "planted"
    reads: ClassVar[tuple[str, ...]] = ("first", "last", "keys", "states", "features", "pixels")

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        return self.method.select(planted(image, self.count, self.mass, self.norm))


def planted(image: Image, count: int, mass: float, norm: float) -> Image:
    """The image with sinks among the less attended half of each partition's tokens, drawn from a seed."""
    layout, last = image.layout, need(image.attention.last, "last").clone()
    states = need(image.states, "states").float().clone()
    draw = torch.Generator().manual_seed(layout.tokens_full)
    direction = torch.nn.functional.normalize(torch.randn(states.shape[1], generator=draw), dim=0)
    length = states[layout.partition != STRUCTURE].norm(dim=-1).median()
    for partition, rows in enumerate(last):
        low = rows.sum(0).argsort()[: rows.shape[-1] // 2]
        cells = low[torch.randperm(len(low), generator=draw)[:count]]
        rows *= 1 - mass
        rows[:, cells] += mass / count
        here = (layout.partition == partition) & torch.isin(layout.cell, cells)
        states[here] = norm * length * direction + 0.1 * states[here]
    given = need(image.states, "states")
    return replace(image, attention=replace(image.attention, last=last), states=states.to(given.dtype))


class Greedy:
    """`glean`'s scores in a determinantal point process's own greedy search, a loop over kept tokens."""

    name: ClassVar[str] = "greedy"
    reads: ClassVar[tuple[str, ...]] = ("last", "states", "pixels")

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens."""
        real = patches(image.layout)
        scores = importance(image, real)
        kernel = conditioned(cosine(need(image.states, "states")[real]), scores / scores.max())
        return in_order(real[by_determinant(kernel, min(image.total, len(real)))], image)


VARIANTS: dict[str, Method] = {
    "glean": Variant(),
    "no novelty": Variant(new="none"),
    "novelty inside partitions alone": Variant(new="partition"),
    "attention itself, not its root": Variant(power=1.0),
    "no attention": Variant(power=0.0),
    "partitions not evened out": Variant(over="nothing"),
    "odds for the full image's tokens alone": Variant(views="full"),
    "all of the full image's pixels resolved": Variant(resolved=1.0),
    "half of them": Variant(resolved=0.5),
    "odds token by token": Variant(near=1),
    "odds over 5 x 5 tokens": Variant(near=5),
    "the full image's tokens count for a k-th": Variant(views="ground"),
    "the full image as any sub-image": Variant(views=1.0),
    "half of that": Variant(views=0.5),
    "a quarter of that": Variant(views=0.25),
    "no full image": Variant(views=0.0),
    "greedy search in place of one pass": Greedy(),
    **{f"sinks: {name}": Planted(METHODS[name]()) for name in ("glean", "hired", "scope", "vispruner", "divprune")},
    "sinks: attention itself, not its root": Planted(Variant(power=1.0)),
    "sinks: no novelty": Planted(Variant(new="none")),
}


def measure(limit: int) -> dict[str, Any]:
    """The content of the file."""
    rows: list[dict[str, Any]] = []
    used: Mapping[str, Any] = {}
    for model, task in COLUMNS:
        where, dtype = MODELS[model]
        loaded = loading.load(where, "cpu", dtype)
        asked = replace(settings(task, limit), budgets=BUDGETS, methods=("hired",))
        found = evaluate(loaded.model, loaded.processor, asked, prompts.prompt, own=VARIANTS)
        rows += [{"model": model, "task": task, **row} for row in found if row["method"] in VARIANTS]
        used = {"settings": asdict(asked), "machine": machine(loaded.model)}
    return {"results": rows, "versions": versions(), **used}


def table(content: Mapping[str, Any]) -> str:
    """A Markdown table: a row a variant."""
    found = {(row["model"], row["task"], row["method"], row["budget"]): row for row in content["results"]}
    columns = [(model, task) for model, task in COLUMNS if any(key[:2] == (model, task) for key in found)]
    count = content["results"][0]["n"]
    heads = [f"{'' if model == 'tiny' else 'second model, '}{task} (n = {count:,})" for model, task in columns]
    lines = [
        "| exact match, % at " + ", ".join(f"{budget:.0%}" for budget in BUDGETS) + " | " + " | ".join(heads) + " |"
    ]
    lines.append("|---" * (len(heads) + 1) + "|")
    for name in VARIANTS:
        cells = [
            " / ".join(f"{100 * found[model, task, name, budget]['exact_match']:.1f}" for budget in BUDGETS)
            for model, task in columns
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measures, writes the file, and puts the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--page", action="store_true", help="write the table from the file")
    args = parser.parse_args()
    if not args.page:
        files.write_json(FILE, measure(args.limit))
    text = PAGE.read_text()
    start, end = text.index("<!-- ablation -->"), text.index("<!-- end -->")
    made = f"<!-- ablation -->\n{table(json.loads(FILE.read_text()))}\n"
    PAGE.write_text(text[:start] + made + text[end:])


if __name__ == "__main__":
    main()
