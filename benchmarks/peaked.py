"""How peaked the attention of the small models is: `src/hired/checking/peaked.json`, which `hired check` compares with.

python benchmarks/peaked.py                 # a minute on two cores
"""

from dataclasses import asdict
from pathlib import Path

from hired import files, loading
from hired.checking.peaked import measure
from hired.machine import machine, versions

HERE = Path(__file__).parent
FILE = HERE.parent / "src" / "hired" / "checking" / "peaked.json"
MODELS = {"tiny": "tiny", "tiny_aya": str(HERE.parent / "tests" / "data" / "tiny_aya")}
WHAT = {
    "tiny": "the shipped model: LLaVA-NeXT, CLS token",
    "tiny_aya": "the second small model: Aya Vision, no CLS token, patches merged 2 x 2",
}


def main() -> None:
    """Measures, and writes the file."""
    rows = []
    for name, source in MODELS.items():
        loaded = loading.load(source, "cpu", "float32")
        rows.append({"model": name, "what": WHAT[name], **asdict(measure(loaded.model, loaded.processor))})
        print(rows[-1])
    files.write_json(FILE, {"results": rows, "versions": versions(), "machine": machine(loaded.model)})


if __name__ == "__main__":
    main()
