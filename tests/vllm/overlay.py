"""Lays the Python files of another vLLM over the libraries of the installed CPU build; `make test-vllm-next` runs it.

    python tests/vllm/overlay.py WHEEL FOLDER

A version of which there is no CPU build is tried in this way: of its wheel, which is built for CUDA, everything but the
compiled libraries is taken. FOLDER before the site-packages of the CPU build's environment (`PYTHONPATH`) is then that
version, as far as the libraries of the other one go.
"""

import importlib.util
import re
import shutil
import sys
import zipfile
from pathlib import Path


def lay(wheel: Path, folder: Path) -> str:
    """Fills `folder`, which it empties first; returns the version, as the CPU build of it would be called.

    vLLM takes the CPU for its platform where the version of the distribution `vllm` says so.
    """
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        raise SystemExit("the CPU build of vLLM is not installed here")
    libraries = [path for path in Path(found.origin).parent.rglob("*.so") if path.is_file()]
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(wheel) as packed:
        names = [name for name in packed.namelist() if name.startswith("vllm/")]
        packed.extractall(folder, [name for name in names if not name.endswith((".so", "/vllm-rs"))])
    for library in libraries:
        place = folder / "vllm" / library.relative_to(Path(found.origin).parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(library, place)
    version = re.fullmatch(r"vllm-([^-+]+)(?:\+[^-]*)?-.*\.whl", wheel.name)
    if version is None:
        raise SystemExit(f"{wheel.name} is no wheel of vllm's")
    facts = folder / f"vllm-{version[1]}+cpu.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version[1]}+cpu\n")
    return f"{version[1]}+cpu"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python tests/vllm/overlay.py WHEEL FOLDER")
    print(lay(Path(sys.argv[1]), Path(sys.argv[2])))
