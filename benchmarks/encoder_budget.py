"""What an encoder budget costs and saves, by depth and ratio: `encoder-budget.json`, and a table in its page.

python benchmarks/encoder_budget.py                 # both halves, about 20 minutes on two cores
python benchmarks/encoder_budget.py --only time     # or exact, or page: the other halves are taken from the file

Accuracy is the shipped model's (5 encoder layers used), time that of LLaVA-NeXT's architecture with a 0.5B LLM (23 of
24 layers used), at the same depths: shares of the layers that see everything, rounded up to a whole layer.
"""

import argparse
import json
import platform
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import hired
from hired import files, prompts
from hired.bench.measure import Job, interleave, run_arm
from hired.bench.settings import Arm, Scene, Settings
from hired.bench.subject import inputs_for, load, pictures
from hired.core.budget import EncoderBudget
from hired.evaluation import Settings as EvalSettings
from hired.evaluation.run import generate
from hired.evaluation.samples import samples
from hired.families import family_of
from hired.machine import machine, versions

HERE = Path(__file__).parent
FILE = HERE / "encoder-budget.json"
PAGE = HERE.parent / "docs" / "encoder-budget.md"
BUDGET = 0.2
DEPTHS = (0.2, 0.25, 0.4, 0.6)
RATIOS = (1.0, 1.25, 1.5, 2.0)
SHAPE = "llava-next-0.5b"


def settings() -> Iterator[EncoderBudget]:
    """Everything that is tried."""
    for depth in DEPTHS:
        for ratio in RATIOS:
            yield EncoderBudget(ratio, depth)


def layer(model: Any, budget: EncoderBudget) -> int:
    """Encoder layers that see everything."""
    encoder = family_of(model).parts(model)
    return budget.layer(encoder.first, encoder.last)


def exact(limit: int) -> dict[str, Any]:
    """Exact match of the shipped model on unseen forms pages, plain and under every encoder budget."""
    model, processor = hired.load_tiny()
    processor.tokenizer.padding_side = "left"
    asked = EvalSettings(limit=limit)
    pages = samples(asked)
    # Depths that mean one layer in this encoder share a measurement.
    tried: dict[tuple[int, float] | None, EncoderBudget | None] = {None: None}
    tried |= {(layer(model, budget), budget.ratio): budget for budget in settings()}
    correct = dict.fromkeys(tried, 0)
    with torch.inference_mode():
        for start in range(0, len(pages), asked.batch_size):
            batch = pages[start : start + asked.batch_size]
            words = [prompts.prompt(processor, sample.question) for sample in batch]
            images = [sample.image for sample in batch]
            inputs = processor(text=words, images=images, return_tensors="pt", padding=True)
            for key, budget in tried.items():
                reduced = hired.reduce(model, inputs, BUDGET, encoder_budget=budget)
                answers = generate(model, processor, asked, reduced)
                correct[key] += sum(answer == sample.answer for answer, sample in zip(answers, batch, strict=True))
    rows = [
        {"depth": budget.depth, "ratio": budget.ratio, "layer": layer(model, budget)}
        | {"correct": correct[layer(model, budget), budget.ratio], "n": len(pages)}
        for budget in settings()
    ]
    return {"plain": {"correct": correct[None], "n": len(pages)}, "rows": rows, "machine": machine(model)}


def time(repeats: int) -> dict[str, Any]:
    """Seconds to the first token, plain and under every encoder budget, in turn in one process."""
    subject = load(Settings(shape=SHAPE, device="cpu", dtype="bfloat16"))
    inputs = inputs_for(subject, pictures(Scene((1344, 1344), 1)), 32)
    tried: dict[tuple[int, float] | None, EncoderBudget | None] = {None: None}
    tried |= {(layer(subject.model, budget), budget.ratio): budget for budget in settings()}
    arms = [Arm(BUDGET, budget) for budget in tried.values()]  # type: ignore[arg-type]
    todo = [Job("arm", lambda arm=arm: run_arm(subject, inputs, arm, 1), arm=arm) for arm in arms]  # type: ignore[misc]
    found = interleave(todo, repeats, 1)
    seconds = {key: [sample.ttft for sample in found[index] or ()] for index, key in enumerate(tried)}
    plain = statistics.median(seconds[None])
    rows = []
    for budget in settings():
        taken = seconds[layer(subject.model, budget), budget.ratio]
        row = {"depth": budget.depth, "ratio": budget.ratio, "layer": layer(subject.model, budget)}
        middle = statistics.median(taken)
        rows.append(row | {"ttft_s": middle, "range": [min(taken), max(taken)], "of_plain": middle / plain})
    return {
        "plain": {"ttft_s": plain, "range": [min(seconds[None]), max(seconds[None])]},
        "rows": rows,
        "repeats": repeats,
        "machine": machine(subject.model),
    }


def page(found: dict[str, Any]) -> str:
    """The tables: points of exact match lost, and time to first token as a share of plain HiRED's."""
    right, timed = found["exact"], found["time"]
    whole, n = right["plain"]["correct"], right["plain"]["n"]
    by_setting = {(row["depth"], row["ratio"]): row for row in timed["rows"]}
    head = "| depth | layers whole: shipped model, 0.5B shape |" + "".join(f" x {ratio:g} |" for ratio in RATIOS)
    lines = [head, "|---" * (2 + len(RATIOS)) + "|"]
    for depth in DEPTHS:
        rows = {row["ratio"]: row for row in right["rows"] if row["depth"] == depth}
        cells = []
        for ratio in RATIOS:
            lost = 100 * (whole - rows[ratio]["correct"]) / n
            cells.append(f"{lost:.1f} points, {by_setting[depth, ratio]['of_plain']:.2f} x")
        layers = f"{rows[RATIOS[0]]['layer']} of 5, {by_setting[depth, RATIOS[0]]['layer']} of 23"
        lines.append(f"| {depth:g} | {layers} | " + " | ".join(cells) + " |")
    on = timed["machine"]
    told = (
        f"Plain HiRED: {whole} of {n} right, first token after {timed['plain']['ttft_s']:.2f} s"
        f" ({on['cpu']}, {on['threads']} threads, {on['dtype']}, {timed['repeats']} repeats, {on['date']};"
        f" torch {found['versions']['torch']}, transformers {found['versions']['transformers']})."
    )
    return "\n".join([*lines, "", told])


def main() -> None:
    """Measures what was asked for, and writes the file and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("exact", "time", "page"))
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    if options.only in (None, "exact"):
        found["exact"] = exact(options.limit)
    if options.only in (None, "time"):
        found["time"] = time(options.repeats)
    if options.only != "page":
        found["settings"] = {"budget": BUDGET, "shape": SHAPE, "depths": DEPTHS, "ratios": RATIOS}
        found |= {"machine": platform.platform(), "versions": versions()}
        files.write_json(FILE, found)
    if {"exact", "time"} <= found.keys():
        start, end = "<!-- table -->\n", "<!-- end of table -->"
        text = PAGE.read_text()
        before, rest = text.split(start)
        PAGE.write_text(before + start + "\n" + page(found) + "\n\n" + end + rest.split(end)[1])


if __name__ == "__main__":
    main()
