"""Which encoder layer should divide the budget where there is no CLS token: `stand-in.json`.

python benchmarks/stand_in.py                 # ten minutes on two cores

Exact match of the second small model (SigLIP, no CLS token, patches merged 2 x 2) with the attention received in each
layer in the part of the initial one. The last layer picks the tokens in all of them. And how often a token that shows
writing receives more than one on blank paper of the same tile, layer by layer.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from hired import files, loading, prompts
from hired.evaluation import Settings
from hired.evaluation.checks import blank
from hired.evaluation.run import generate
from hired.evaluation.samples import Sample, samples
from hired.families import family_of
from hired.machine import machine, versions
from hired.methods.base import token_scores
from hired.reduction import assemble, encode, plan, project, select

HERE = Path(__file__).parent
FILE = HERE / "stand-in.json"
MODEL = HERE.parent / "tests" / "data" / "tiny_aya"
BUDGETS = (0.4, 0.2, 0.1)


def measure(asked: Settings) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for every layer and budget, and the machine."""
    loaded = loading.load(str(MODEL), "cpu", "auto")
    model, processor = loaded.model, loaded.processor
    processor.tokenizer.padding_side = "left"
    encoder = family_of(model).parts(model)
    pages = samples(asked)
    jobs = [(layer, budget) for layer in range(encoder.last) for budget in asked.check()]
    correct, tokens = dict.fromkeys(jobs, 0), dict.fromkeys(jobs, 0)
    with torch.inference_mode():
        for start in range(0, len(pages), asked.batch_size):
            batch = pages[start : start + asked.batch_size]
            words = [prompts.prompt(processor, sample.question) for sample in batch]
            images = [sample.image for sample in batch]
            inputs = processor(text=words, images=images, return_tensors="pt", padding=True)
            for layer in range(encoder.last):
                other = replace(encoder, starts=layer)
                found = encode(replace(plan(model, inputs, 0.1, images=images), encoder=other), everything=True)
                for budget in asked.check():
                    made = plan(model, inputs, budget, images=images)
                    rows = select(made, found)
                    answers = generate(model, processor, asked, assemble(made, found, rows, project(made, found, rows)))
                    tokens[layer, budget] += sum(len(row) for row in rows if row is not None)
                    correct[layer, budget] += sum(a == sample.answer for a, sample in zip(answers, batch, strict=True))
    rows = [
        {"method": f"layer {layer}", "budget": budget, "tokens": round(tokens[layer, budget] / len(pages), 2)}
        | {"exact_match": round(correct[layer, budget] / len(pages), 4), "correct": correct[layer, budget]}
        | {"n": len(pages)}
        for layer, budget in jobs
    ]
    return rows, machine(model)


def above(model: Any, processor: Any, pages: Sequence[Sample], layer: int) -> float:
    """How often a token with writing receives more in a layer than one without, in the same tile; 0.5 is chance."""
    found = []
    for sample in pages:
        words = prompts.prompt(processor, sample.question)
        inputs = processor(text=words, images=[sample.image], return_tensors="pt")
        made = plan(model, inputs, 2, images=[sample.image])
        encoder = replace(family_of(model).parts(model), tells=layer)
        layout, attention = made.layouts[0], encode(replace(made, encoder=encoder), everything=True).attention[0]
        if attention.last is None:
            raise RuntimeError("the layer was not read")
        scores = token_scores(attention.last, layout)
        written = torch.ones(layout.tokens_full, dtype=torch.bool)
        written[blank(layout, sample)] = False
        for partition in range(1, layout.partitions):
            here = layout.partition == partition
            one, other = scores[here & written], scores[here & ~written]
            if len(one) and len(other):
                found.append((one[:, None] > other).float().mean())
    return float(torch.stack(found).mean())


def main() -> None:
    """Measures, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=400)
    asked = Settings(limit=parser.parse_args().limit, budgets=BUDGETS, methods=("hired",))
    rows, on = measure(asked)
    loaded, pages = loading.load(str(MODEL), "cpu", "auto"), samples(replace(asked, limit=100))
    layers = len(family_of(loaded.model).parts(loaded.model).layers)
    told = [round(above(loaded.model, loaded.processor, pages, layer), 3) for layer in range(layers)]
    result = {
        "task": asked.task,
        "model": MODEL.name,
        "settings": asdict(asked),
        "results": rows,
        "writing_above_blank": told,
    }
    files.write_json(FILE, result | {"versions": versions(), "machine": on})
    for row in rows:
        print(row["method"], row["budget"], row["exact_match"])


if __name__ == "__main__":
    main()
