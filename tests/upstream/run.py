"""Runs transformers' own tests of the supported model classes, untouched and under `hired.enable(budget=1.0)`.

    python tests/upstream/run.py DIR [words for pytest ...]

DIR is a checkout of transformers, of the version that is installed or one near it; nothing of it but its tests is used.
Ends with 1 where a test that passes untouched does not pass enabled, and names it. Writes what pytest prints and the
outcome of every test to out/upstream/.
"""

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import transformers

from hired.families import FAMILIES

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "out" / "upstream"
RUNS = {"untouched": "", "enabled": "1.0"}

Outcomes = dict[str, dict[str, Any]]
"""By a test's id: its `outcome`, how many enabled models it `made`, and of a failure the `error` and our `line`."""


def _kinds() -> list[str]:
    """The supported model types, as transformers' folders of tests are called."""
    return [kind for family in FAMILIES for kind in family.model_types]


def test_files(checkout: Path) -> list[str]:
    """The test files of the supported models, relative to a checkout.

    Raises:
        SystemExit: it lacks one.
    """
    files = [f"tests/models/{kind}/test_modeling_{kind}.py" for kind in _kinds()]
    missing = [file for file in files if not (checkout / file).is_file()]
    if missing:
        raise SystemExit(f"{checkout} is no checkout of transformers with tests: it has no {missing[0]}")
    return files


def outcomes(checkout: Path, name: str, words: list[str]) -> Outcomes:
    """The outcome of every test in one of the runs.

    Raises:
        SystemExit: pytest ended before the tests did.
    """
    log, target = OUT / f"{name}.log", OUT / f"{name}.json"
    target.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH")))),
        "HIRED_BUDGET": RUNS[name],
        "HIRED_OUTCOMES": str(target),
        "HF_HUB_OFFLINE": "1",
    }
    plugins = ("-p", "hired_upstream", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-o", "log_cli=false", *plugins]
    print(f"{name}: running, {log} tells how far", flush=True)
    with log.open("w", encoding="utf-8") as stream:
        subprocess.run(
            [*command, *words, *test_files(checkout)],
            cwd=checkout,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if not target.is_file():
        raise SystemExit(f"pytest ended before it had run the tests: see {log}")
    found: Outcomes = json.loads(target.read_text(encoding="utf-8"))
    if not any(test["outcome"] == "passed" for test in found.values()):
        raise SystemExit(f"no test passes {name}: see {log}")
    return found


def report(untouched: Outcomes, enabled: Outcomes) -> tuple[str, bool]:
    """What to print of two runs, and whether every test that passes untouched passes enabled, some enabling a model."""
    passed = [test for test, told in untouched.items() if told["outcome"] == "passed"]
    lost = {"outcome": "not run", "made": 0}
    broken = [test for test in passed if enabled.get(test, lost)["outcome"] != "passed"]
    made = [enabled[test]["made"] for test in passed if test in enabled]
    lines = []
    for name, run in (("untouched", untouched), ("enabled", enabled)):
        counts = Counter(told["outcome"] for told in run.values())
        lines.append(f"{name}: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    kinds: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for test in broken:
        told = enabled.get(test, lost)
        kinds[told["outcome"], told.get("error", ""), told.get("line", "")].append(test)
    for (outcome, error, line), tests in sorted(kinds.items(), key=lambda kind: -len(kind[1])):
        lines += [f"{outcome} only when enabled{': ' * bool(error)}{error}{f' ({line})' * bool(line)}"]
        lines += [f"    {test}" for test in tests]
    lines += [f"{len(passed)} tests pass untouched, {len(passed) - len(broken)} of them enabled too"]
    lines += [f"{sum(map(bool, made))} of them made {sum(made)} enabled models"]
    seen = {Path(test.partition("::")[0]).parent.name for test, told in enabled.items() if told["made"]}
    lines += [f"no test makes a model of {kind}" for kind in _kinds() if kind not in seen]
    return "\n".join(lines), bool(passed) and not broken and any(made)


def main() -> int:
    """Runs the tests twice and compares; the exit code."""
    if len(sys.argv) < 2 or not sys.argv[1]:
        raise SystemExit(__doc__)
    checkout, words = Path(sys.argv[1]).resolve(), sys.argv[2:]
    if not (checkout / "tests").is_dir() and (checkout.parent / "tests").is_dir():
        checkout = checkout.parent  # its folder of tests was named
    test_files(checkout)
    OUT.mkdir(parents=True, exist_ok=True)
    runs = {name: outcomes(checkout, name, words) for name in RUNS}
    text, good = report(**runs)
    print(f"transformers {transformers.__version__}, tests of {checkout}\n{text}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
