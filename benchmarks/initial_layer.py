"""Does the initial layer tell how much a sub-image holds? `initial-layer.json`.

python benchmarks/initial_layer.py            # two minutes on two cores

Over the sub-images of many pages, the correlation (Pearson) of the share that HiRED's step 1 gives to a sub-image with
the share of what is drawn (area of its boxes) that lies there; both in shares of an even division.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hired import files, loading, prompts
from hired.core.allocate import content_scores
from hired.core.layout import Layout
from hired.evaluation import Settings
from hired.evaluation.samples import Sample, samples
from hired.machine import machine, versions
from hired.reduction import encode, plan
from hired.reduction.select import images

HERE = Path(__file__).parent
FILE = HERE / "initial-layer.json"
TASKS = {"tiny": ("forms", "dense", "large", "shapes", "layout", "mixed"), "tiny_aya": ("forms", "dense")}
WHERE = {"tiny": "tiny", "tiny_aya": str(HERE.parent / "tests" / "data" / "tiny_aya")}


def held(layout: Layout, sample: Sample) -> Tensor:
    """(sub-images,) float64 area of what is drawn in each, in pixels."""
    found = torch.zeros(layout.partitions - 1, dtype=torch.float64)
    for index, (x0, y0, x1, y1) in enumerate(layout.boxes[1:]):
        for left, top, right, bottom in sample.ink:
            found[index] += max(0, min(x1, right) - max(x0, left)) * max(0, min(y1, bottom) - max(y0, top))
    return found


@torch.inference_mode()
def measure(model: Any, processor: Any, asked: Settings) -> dict[str, Any]:
    """One row: the correlation, and over how many sub-images."""
    given, truth = [], []
    for sample in samples(asked):
        words = [prompts.prompt(processor, sample.question)]
        inputs = prompts.inputs(model, processor, words, [sample.image])
        made = plan(model, inputs, 0.2, images=[sample.image])
        if made.layouts[0].partitions < 3:
            continue
        (image,) = images(made, encode(made, everything=True))
        if image is None or image.attention.first is None:
            raise RuntimeError("the initial layer was not read")
        layout, mass = image.layout, image.attention.first.double()
        share, there = content_scores(mass.view(-1, *layout.cells), layout.rows, layout.columns), held(layout, sample)
        if there.sum() > 0:
            given.append(share / share.mean())
            truth.append(there / there.mean())
    pair = torch.stack((torch.cat(given).double(), torch.cat(truth)))
    return {
        "correlation": round(float(torch.corrcoef(pair)[0, 1]), 3),
        "sub_images": pair.shape[1],
        "pages": len(given),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=200)
    args = parser.parse_args()
    rows, used = [], {}
    for name, tasks in TASKS.items():
        loaded = loading.load(WHERE[name], "cpu", "float32")
        for task in tasks:
            asked = Settings(task=task, limit=args.limit)
            rows.append({"model": name, "task": task, **measure(loaded.model, loaded.processor, asked)})
            print(rows[-1])
        used = {"settings": {"limit": args.limit, **asdict(asked)}, "machine": machine(loaded.model)}
    files.write_json(FILE, {"results": rows, "versions": versions(), **used})


if __name__ == "__main__":
    main()
