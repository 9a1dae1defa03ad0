"""Whether HiRED is ever slower than nothing on a GPU: the targets, against what `make bench-gpu` writes.

python benchmarks/gpu_targets.py      # a line a target that is missed; 1 if there is any
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OF_ALLOWED = {("llava-next-7b", 1, 0.2): 0.95}
"""By shape, batch and budget: the least share of the allowed speed-up."""


def missed(content: dict[str, Any]) -> Iterator[str]:
    """What a result file of `hired bench` falls short of."""
    rows = [row for row in content["results"] if row["status"] == "ok"]
    untouched = {(tuple(row["image"]), row["batch"]): row["ttft_s"] for row in rows if row["budget"] == 1}
    for row in rows:
        shape, most = content["subject"], untouched[tuple(row["image"]), row["batch"]]
        encoder = "" if row["encoder_budget"] is None else f", encoder x {row['encoder_budget']:g}"
        name = f"{shape}, batch {row['batch']}, {row['budget']:g}{encoder}"
        if row["budget"] != 1 and row["ttft_s"] > most:
            yield f"{name}: {1000 * row['ttft_s']:.1f} ms to the first token, {1000 * most:.1f} untouched"
        wanted = OF_ALLOWED.get((shape, row["batch"], row["budget"]))
        if wanted is not None and not encoder and row["speedup_of_allowed"] < wanted:
            yield f"{name}: {row['speedup_of_allowed']:.2f} of the allowed speed-up, {wanted} wanted"


def main() -> int:
    lines = [line for path in sorted(HERE.glob("speed-*-gpu.json")) for line in missed(json.loads(path.read_text()))]
    print("\n".join(lines) or "every target is met")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
