"""Runs transformers' own tests of the supported model classes, untouched and under `hired.enable(budget=1.0)`.

    python tests/upstream/run.py DIR [words for pytest ...]

DIR is the `tests` folder of a checkout of transformers, of the version that is installed or one near it. Ends with 1
where a test that passes untouched does not pass enabled, and names it.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from hired.families import FAMILIES

HERE = Path(__file__).resolve().parent


def outcomes(folder: Path, budget: str, words: list[str]) -> dict[str, str]:
    """The outcome of every test by its id."""
    files = [
        str(path.relative_to(folder.parent))
        for family in FAMILIES
        for model_type in family.model_types
        if (path := folder / "models" / model_type / f"test_modeling_{model_type}.py").is_file()
    ]
    if not files:
        raise SystemExit(f"{folder} holds no models/NAME/test_modeling_NAME.py: name the tests folder of transformers")
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, "outcomes.json")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH")))),
            "HIRED_BUDGET": budget,
            "HIRED_OUTCOMES": str(target),
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "hired_upstream", "-k", "not Integration"]
        subprocess.run([*command, *words, *files], cwd=folder.parent, env=environment, check=False)
        if not target.is_file():
            raise SystemExit("pytest ended before it had run the tests: see above")
        found: dict[str, str] = json.loads(target.read_text(encoding="utf-8"))
        return found


def main() -> int:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    folder, words = Path(sys.argv[1]).resolve(), sys.argv[2:]
    stock, enabled = outcomes(folder, "", words), outcomes(folder, "1.0", words)
    if "passed" not in stock.values():
        raise SystemExit(
            "no test passes untouched: is this the tests folder of the installed version, with all it needs?"
        )
    broken = sorted(test for test, outcome in stock.items() if outcome == "passed" and enabled.get(test) != "passed")
    print("untouched:", dict(Counter(stock.values())), "enabled:", dict(Counter(enabled.values())))
    for test in broken:
        print(f"{enabled.get(test, 'not run')} only when enabled: {test}")
    print(f"{len(broken)} tests pass untouched and not enabled")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
