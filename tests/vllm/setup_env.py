"""Makes a CPU environment with vLLM importable; run by its own interpreter (`make test-vllm` does).

The CPU build of vLLM is installed beside a torchvision built for CUDA, whose operators cannot load on a CPU torch. vLLM
imports torchvision without using those operators, so it is enough that they are declared.
"""

import importlib.util
import sys
from pathlib import Path

MARK = "# Declared for a CPU torch, on which this build's operators cannot load."

DECLARATIONS = f"""

{MARK}
if not _has_ops():
    for _name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{{_name}}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def declare_operators(extension: Path) -> bool:
    """Appends the declarations to `torchvision/extension.py`, once; returns whether anything was written."""
    text = extension.read_text(encoding="utf-8")
    if MARK in text:
        return False
    extension.write_text(text + DECLARATIONS, encoding="utf-8")
    return True


def main() -> int:
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        print("torchvision is not installed here: nothing to do")
        return 0
    if sys.prefix == sys.base_prefix:
        print("not in a virtual environment: this script changes the torchvision it finds", file=sys.stderr)
        return 1
    declare_operators(Path(found.origin).parent / "extension.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
