"""Which encoder layer should divide the budget where there is no CLS token: `stand-in.json`.

python benchmarks/stand_in.py                 # ten minutes on two cores

Exact match of the second small model (SigLIP, no CLS token, patches merged 2 x 2) with the attention received in each
layer in the part of the initial one. The last layer picks the tokens in all of them.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from hired.cli import loading, output
from hired.evaluation import Settings
from hired.evaluation.run import generate
from hired.evaluation.samples import samples
from hired.families import family_of
from hired.machine import machine
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
            words = [loading.prompt(processor, sample.question) for sample in batch]
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


def main() -> None:
    """Measures, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=400)
    asked = Settings(limit=parser.parse_args().limit, budgets=BUDGETS, methods=("hired",))
    rows, on = measure(asked)
    result = {"task": asked.task, "model": MODEL.name, "settings": asdict(asked), "results": rows}
    output.write_json(FILE, result | {"versions": output.versions(), "machine": on})
    for row in rows:
        print(row["method"], row["budget"], row["exact_match"])


if __name__ == "__main__":
    main()
