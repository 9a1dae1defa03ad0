"""How many operations torch dispatches for one prefill, untouched and under a budget: the same on every machine.

python -m benchmarks.operations      # writes benchmarks/operations.json and docs/operations.md

The model is as deep as LLaVA-NeXT with CLIP-L and a 24-layer LLM, but narrow and random: operations do not depend on
widths or values. A GPU at batch 1 waits for Python to start each of them, so this is what a small model's time to the
first token follows.
"""

import copy
import textwrap
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import hired
from hired.files import write_json
from hired.machine import machine, versions

HERE = Path(__file__).parent
OUT, PAGE = HERE / "operations.json", HERE.parent / "docs" / "operations.md"
LAYERS, BUDGET, BATCHES = 24, 0.2, (1, 2, 4)
ARMS: dict[str, dict[str, Any] | None] = {"untouched": None, "20%": {}, "20%, encoder x 2": {"encoder_budget": 2}}


class Dispatched(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def deep() -> tuple[Any, Any]:
    """The shipped model's kind with as many layers as the real one, and its processor."""
    shipped, processor = hired.load_tiny()
    config = copy.deepcopy(shipped.config)
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = LAYERS
    config.text_config.layer_types = None
    torch.manual_seed(0)
    return type(shipped)(config).eval(), processor


@torch.no_grad()
def operations(model: Any, inputs: Any, settings: dict[str, Any] | None) -> int:
    """Of a prefill that is not the first of its kind."""
    for _ in range(2):
        with Dispatched() as dispatched:
            model(**(inputs if settings is None else hired.reduce(model, inputs, BUDGET, **settings)))
    return dispatched.count


def page(content: dict[str, Any]) -> str:
    """The page of a result file."""
    settings, made = content["settings"], ", ".join(f"{key} {value}" for key, value in content["versions"].items())
    layers, partitions = settings["layers"], settings["partitions"]
    what = (
        "How many operations torch dispatches for one prefill, encoder included, of a LLaVA-NeXT with"
        f" {layers} layers in the encoder and in the LLM, pictures of {partitions} partitions, on a CPU. Counts are"
        " the same on every machine. At batch 1 a GPU waits for Python to start them."
    )
    lines = [
        "# Operations",
        "",
        "Written by `python -m benchmarks.operations` from `benchmarks/operations.json`; not edited by hand.",
        "",
        textwrap.fill(what, 120),
        "",
        "| batch | | operations | more than untouched |",
        "|---|---|---|---|",
    ]
    for row in content["results"]:
        lines.append(f"| {row['batch']} | {row['arm']} | {row['operations']:,} | {row['more']:+,} |")
    ends = "Under a budget the encoder's last layer does not run, which saves about 25; that is in the difference."
    return "\n".join([*lines, "", ends, "", f"Versions: {made}.", ""])


def main() -> None:
    model, processor = deep()
    side = int(model.config.vision_config.image_size)
    generator = torch.Generator().manual_seed(0)
    rows = []
    for batch in BATCHES:
        pictures = [torch.randint(256, (3, 2 * side, 2 * side), generator=generator, dtype=torch.uint8).numpy()] * batch
        inputs = processor(images=pictures, text=["<image> what?"] * batch, return_tensors="pt")
        counts = {name: operations(model, inputs, settings) for name, settings in ARMS.items()}
        rows += [
            {"batch": batch, "arm": name, "operations": count, "more": count - counts["untouched"]}
            for name, count in counts.items()
        ]
    settings = {"layers": LAYERS, "budget": BUDGET, "partitions": int(inputs["pixel_values"].shape[1])}
    content = {"settings": settings, "machine": machine(model), "versions": versions(), "results": rows}
    write_json(OUT, content)
    PAGE.write_text(page(content), encoding="utf-8")


if __name__ == "__main__":
    main()
