"""The page `docs/leaderboard.md` and its plots, from the files that `benchmarks.leaderboard` wrote."""

import json
import statistics
from pathlib import Path
from typing import Any

from hired import files

HERE = Path(__file__).parent
FOLDER = HERE / "leaderboard"
TIMES = HERE / "leaderboard-time.json"
PAGE = HERE.parent / "docs" / "leaderboard.md"
IMAGES = HERE.parent / "docs" / "images"
NAMES = {
    "tiny": "the shipped model (CLIP, CLS token)",
    "tiny_aya": "the second model (SigLIP, no CLS token, 2 x 2 merged)",
}
TASKS = {
    "forms": "small print, 1 to 4 lines",
    "forms-unseen": "the same in typefaces that training never showed",
    "dense": "small print, about three lines a tile",
    "large": "large print and shapes that tile borders cut",
    "shapes": "colours, kinds and numbers of shapes",
    "layout": "where things are, what lies beside them",
    "mixed": "all of it on one page",
}


def path(model: str, task: str, method: str) -> Path:
    """Where a method's results on a task are."""
    return FOLDER / model / task / f"{method}.json"


def results(model: str, task: str) -> dict[str, dict[float, dict[str, Any]]]:
    """Rows by method and budget."""
    found = {}
    for file in sorted((FOLDER / model / task).glob("*.json")):
        rows = json.loads(file.read_text())["results"]
        found[file.stem] = {row["budget"]: row for row in rows}
    return found


def measured() -> list[tuple[str, str]]:
    """(model, task) of everything that has files."""
    return [(model, task) for model in NAMES for task in TASKS if (FOLDER / model / task).is_dir()]


def mean(rows: dict[float, dict[str, Any]]) -> float:
    """Of the exact match over the budgets below 1: what the table is sorted by."""
    below = [row["exact_match"] for budget, row in rows.items() if budget < 1]
    return sum(below) / len(below)


def table(model: str, task: str) -> str:
    """A Markdown table: a row a method, a column a budget; in bold what is within the best one's interval."""
    found = results(model, task)
    budgets = sorted({budget for rows in found.values() for budget in rows if budget < 1}, reverse=True)
    best = {budget: max(rows[budget]["low"] for rows in found.values() if budget in rows) for budget in budgets}
    some = found.get("hired") or next(iter(found.values()))
    head = [f"{budget:.0%} ({some[budget]['tokens']:.0f} tokens)" for budget in budgets]
    lines = ["| method | " + " | ".join(head) + " | ms |", "|---" * (len(head) + 2) + "|"]
    for name in sorted(found, key=lambda name: -mean(found[name])):
        cells = []
        for budget in budgets:
            row = found[name].get(budget)
            if row is None:
                cells.append("")
                continue
            text = f"{100 * row['exact_match']:.1f} ({100 * row['low']:.1f}-{100 * row['high']:.1f})"
            cells.append(f"**{text}**" if row["high"] >= best[budget] and row["exact_match"] >= best[budget] else text)
        spent = [row["choose_ms"] for row in found[name].values() if row["choose_ms"] is not None]
        cells.append(f"{sorted(spent)[len(spent) // 2]:.1f}" if spent else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    whole = next((rows[1] for rows in found.values() if 1 in rows), None)
    if whole is not None:
        lines.append("")
        text = f"{100 * whole['exact_match']:.1f} ({100 * whole['low']:.1f}-{100 * whole['high']:.1f})"
        lines.append(f"Everything kept: {text} with {whole['tokens']:.0f} tokens; n = {whole['n']:,}.")
    return "\n".join(lines)


INTRODUCTION = """# Every method on every task

Written by `python -m benchmarks.leaderboard` from the files in [`benchmarks/leaderboard/`](../benchmarks/README.md);
not edited by hand. Exact match in percent with Wilson's 95 % interval in brackets, by the share of visual tokens kept.
Rows stand in the order of their mean over the budgets; bold is what no other method beats beyond its interval. "ms" is
the time of choosing a picture's tokens once it is encoded (median over budgets; on the machine of the files, with other
work beside it). What each method does: [methods](methods.md).

## The protocol, and what it guards against

- **The budget is of the whole picture**, full image included: floor(share x partitions x tokens of a partition). Papers
  differ: "320 tokens" may be per picture, an average over the LLM's layers, or what a method happens to keep.
- **Unpadding first.** Padding of the tile canvas is taken off before tokens are chosen, for every method alike.
- **Newlines** of row ends go, under every method; none spends its budget on them.
- **Merged tokens count** as the tokens they are.
- **Every method reads the same encoding** of the same page, one run for all, and decoding is greedy.
- **A smaller picture** and evenly spaced, random and full-image tokens stand in the table: what does not beat them is
  worth nothing.

## What these pictures can tell, and what not

They are drawn ([`hired.forms`](tiny.md)), and the models are small. That tells whether a choice keeps what is asked for
under equal tokens, and how it falls as they get fewer. Small print (`forms`, `dense`) is legible in sub-images only: a
method that ignores the full image loses nothing there. Large print and large shapes (`large`, and part of `shapes` and
`layout`) are whole in the full image only: a method that lives on the sub-images loses there. `mixed` has both on a
page. The second model was trained on small print alone. None of this tells how much a 7B model loses on photographs,
where most questions can be answered from a few dozen tokens and any method does well; for that, see the published
numbers below, and measure on your own checkpoint ([evaluate](evaluate.md#published-benchmarks)).
"""

NUMBERS = {
    "N1": "SCOPE 99.8 / 97.8 / 94.4, VisionZip 99.4 / 95.3 / 89.3, DivPrune 98.4 / 96.0 / 92.4,"
    " PruMerge+ 96.4 / 93.5 / 86.2",
    "N2": "HiRED 96.2 (HiPrune's tasks), 93.4 (DiffPrune's, HoloV there 95.7)",
    "N3": "EADP 66.3 / 65.2 / 63.4, CDPruner 66.0 / 64.5 / 62.9, VisionZip 65.6 / 62.9 / 59.1,"
    " DivPrune 65.3 / 63.6 / 61.4, HiPrune 64.4 / 62.3 / 56.2",
    "N4": "SCOPE 97.8 / 96.0 / 93.5, VisionZip 96.8 / 93.0 / 86.8, DivPrune 96.7 / 93.7 / 90.2",
    "N5": "DivPrune 74.0, 67.0, 665; EADP 73.8, 67.4, 668; HiPrune 64.2, 56.7, 579; CDPruner 55.1, 56.8, 509",
    "N6": "EADP 62.8, 55.5, 625; DivPrune 55.8, 47.5, 595",
    "N7": "DivPrune 92.5, VisionZip 90.5, CDPruner 90.0",
}
PUBLISHED = """## Published numbers at equal tokens

Share of the untouched model's accuracy, in percent, at the number of visual tokens that enter the LLM. Each line is one
paper's protocol; numbers of different lines do not compare.

| protocol | model | tokens | published |
|---|---|---|---|
| TOPS, table 12 ([2606.27161](https://arxiv.org/abs/2606.27161)) | LLaVA-NeXT-7B | 640 / 320 / 160 | {N1} |
| HiPrune ([2508.00553](https://arxiv.org/abs/2508.00553)), DiffPrune | LLaVA-NeXT-7B | 320 | {N2} |
| EADP, mean of nine (full 66.3) | LLaVA-NeXT-7B | 640 / 320 / 160 | {N3} |
| SCOPE ([2510.24214](https://arxiv.org/abs/2510.24214)) | LLaVA-1.5-7B | 128 / 64 / 32 | {N4} |
| EADP: TextVQA, ChartQA, OCRBench (full 84.5, 86.4, 869) | Qwen2.5-VL-7B | 256 of 1296 | {N5} |
| EADP: DocVQA, ChartQA, OCRBench (full 94.5, 82.3, 855) | Qwen3-VL-8B | 256 of 1024 | {N6} |
| EADP | InternVL3-8B | 256 of 1280 | {N7} |

HiRED's own paper, LLaVA-NeXT-7B at 20 % (576 tokens): VQAv2 77.5 (of 80.3), TextVQA 61.4 (64.8), DocVQA 60.8 (73.4),
OCRBench 475 (501), ChartQA 42.0 (54.8). Everybody loses most on text; random tokens do well on easy benchmarks.
"""


def plot_tokens(file: Path) -> None:
    """Exact match over tokens, a panel a task."""
    panels = measured()
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = files.new_figure(5.2 * columns, 3.7 * lines + 1.1, dpi=130)
    grid = figure.subplots(lines, columns, squeeze=False)
    handles: dict[str, Any] = {}
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (model, task) in zip(grid.flat, panels, strict=False):
        found = results(model, task)
        for name, rows in found.items():
            points = sorted((row["tokens"], 100 * row["exact_match"]) for budget, row in rows.items() if budget < 1)
            (line,) = axes.plot(*zip(*points, strict=True), label=name, **style(name))
            handles.setdefault(name, line)
        ticks = sorted({row["tokens"] for row in found["hired"].values() if row["budget"] < 1})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, 100)
        axes.set_title(f"{model}: {TASKS[task]}", loc="left", fontsize=9)
        axes.grid(axis="y", color="#e9ecef", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("visual tokens a picture (mean)")
    for axes in grid[:, 0]:
        axes.set_ylabel("exact match, %")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=9, frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Software": None})


def plot_time(file: Path) -> None:
    """Exact match of the shipped model over seconds to the first token at the 0.5B shape."""
    times = json.loads(TIMES.read_text())
    # One time of encoding for all: what methods read beside attention costs less than runs differ.
    encoding = statistics.median(row["encode_s"] for row in times["results"])
    seconds = {
        (row["method"], row["budget"]): encoding + row["choose_s"] + row["prefill_s"] for row in times["results"]
    }
    panels = [("tiny", "forms"), ("tiny", "mixed")]
    figure = files.new_figure(6.2 * len(panels), 4.8, dpi=130)
    handles: dict[str, Any] = {}
    where = times["machine"]["cpu"].split("(")[0].strip()
    words = f"seconds to the first token, {times['subject']} on {where}; dashed: everything kept"
    for axes, (model, task) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, rows in results(model, task).items():
            points = sorted(
                (seconds[name, budget], 100 * row["exact_match"])
                for budget, row in rows.items()
                if (name, budget) in seconds
            )
            if points:
                (line,) = axes.plot(*zip(*points, strict=True), label=name, **style(name))
                handles.setdefault(name, line)
        axes.axvline(times["full_s"], color="#adb5bd", linewidth=1, linestyle="--")
        axes.set_ylim(0, 100)
        axes.set_title(f"{model}: {TASKS[task]}", loc="left", fontsize=9)
        axes.grid(axis="y", color="#e9ecef", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel(words, fontsize=8)
        axes.set_ylabel("exact match of the shipped model, %")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=8, frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Software": None})


OURS = ("glean", "hired")
COLOURS = {"glean": "#2f9e44", "hired": "#e8590c", "published": "#f08c00", "scope": "#1971c2", "divprune": "#7048a8"}
BLIND = ("uniform", "random", "overview", "smaller")
MARKS = "osDv^<>Pp*X"


def style(name: str) -> dict[str, Any]:
    """How a method is drawn: ours in front, what looks at nothing in grey."""
    from hired.evaluation import all_methods

    names = list(all_methods())
    others = [known for known in names if known not in (*COLOURS, *BLIND)]
    index = names.index(name)
    shades = (
        "#1098ad",
        "#c2255c",
        "#5c940d",
        "#364fc7",
        "#a0522d",
        "#0b7285",
        "#862e9c",
        "#f06595",
        "#495057",
        "#fab005",
    )
    colour = COLOURS.get(name) or ("#adb5bd" if name in BLIND else shades[others.index(name) % len(shades)])
    front = name in OURS
    return {
        "color": colour,
        "marker": MARKS[index % len(MARKS)],
        "linewidth": 2.4 if front else 1.1,
        "markersize": 6 if front else 4,
        "linestyle": ":" if name in BLIND else "-",
        "zorder": 4 if front else 2,
        "clip_on": False,
    }


def page() -> str:
    """The text of the page."""
    parts = [INTRODUCTION, "![Exact match over visual tokens](images/leaderboard-tokens.png)\n"]
    if TIMES.exists():
        parts.append("![Exact match over time to first token](images/leaderboard-time.png)\n")
    for model in NAMES:
        tasks = [task for of, task in measured() if of == model]
        if tasks:
            parts.append(f"## {NAMES[model][0].upper()}{NAMES[model][1:]}\n")
        for task in tasks:
            file = next((FOLDER / model / task).glob("*.json"))
            content = json.loads(file.read_text())
            made = ", ".join(f"{key} {value}" for key, value in content["versions"].items())
            where = content["machine"]
            parts.append(f"### {task}: {TASKS[task]}\n\n{table(model, task)}\n")
            parts.append(f"`{model}/{task}`: {where['device']}, {where['dtype']}, {where['date']}; {made}.\n")
    if TIMES.exists():
        parts.append(times())
    return "\n".join([*parts, PUBLISHED.format(**NUMBERS)])


def times() -> str:
    """What choosing costs beside encoding and prefill."""
    content = json.loads(TIMES.read_text())
    rows = content["results"]
    budgets = sorted({row["budget"] for row in rows}, reverse=True)
    found = {(row["method"], row["budget"]): row for row in rows}
    typical = statistics.median(row["encode_s"] for row in rows)
    lines = [
        "## What choosing costs\n",
        f"At the shape of {content['subject']}, {content['settings']['image'][0]} x {content['settings']['image'][1]}"
        f" pixels, on {content['machine']['cpu']}, {content['machine']['threads']} threads,"
        f" {content['machine']['dtype']}: milliseconds of choosing and merging, in brackets the share of encoding"
        f" ({typical:.2f} s). Everything kept, the first token takes {content['full_s']:.2f} s.\n",
        "| method | " + " | ".join(f"{budget:.0%}" for budget in budgets) + " |",
        "|---" * (len(budgets) + 1) + "|",
    ]
    for name in dict.fromkeys(row["method"] for row in rows):
        cells = [
            f"{1000 * found[name, budget]['choose_s']:,.0f} ({found[name, budget]['choose_s'] / typical:.1%})"
            for budget in budgets
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    prefills = ", ".join(f"{found['hired', budget]['prefill_s']:.2f} s at {budget:.0%}" for budget in budgets)
    return "\n".join([*lines, "", f"Prefill behind it: {prefills}. `leaderboard-time.json`.\n"])


def summary() -> str:
    """The README's table: ours and the best known of the field, on small print, on large things, and on both."""
    columns = (("tiny", "forms"), ("tiny", "large"), ("tiny", "mixed"), ("tiny_aya", "forms"))
    budgets = (0.2, 0.1, 0.05, 0.03)
    words = {"forms": "small print", "large": "large print and shapes", "mixed": "both"}
    head = [words[task] if model == "tiny" else f"second model, {words[task]}" for model, task in columns]
    some = " / ".join(f"{budget:.0%}" for budget in budgets)
    lines = [f"| exact match, % at {some} of the tokens | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name in ("hired", "glean", "scope", "divprune", "vispruner", "visionzip"):
        cells = []
        for model, task in columns:
            rows = results(model, task)[name]
            cells.append(" / ".join(f"{100 * rows[budget]['exact_match']:.1f}" for budget in budgets))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Writes the page and the plots."""
    PAGE.write_text(page())
    plot_tokens(IMAGES / "leaderboard-tokens.png")
    if TIMES.exists():
        plot_time(IMAGES / "leaderboard-time.png")
