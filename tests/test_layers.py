"""Dependencies go one way: nothing below the command line imports it."""

import ast
from pathlib import Path

import pytest

import hired

PACKAGE = Path(hired.__file__).parent
BELOW = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] != "cli"]


def imported(path: Path) -> set[str]:
    """Modules that a file names in its imports, wherever they stand."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", BELOW, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_below_the_command_line_imports_it(path: Path) -> None:
    assert not {name for name in imported(path) if name == "hired.cli" or name.startswith("hired.cli.")}


def test_core_knows_nothing_of_the_rest() -> None:
    for path in (PACKAGE / "core").glob("*.py"):
        known = {name for name in imported(path) if name.startswith("hired.")}
        assert all(name.startswith(("hired.core", "hired.errors")) for name in known), path


def test_one_file_knows_llama_cpp() -> None:
    knowing = [path.relative_to(PACKAGE) for path in BELOW if "llama_cpp" in imported(path)]
    assert knowing == [Path("gguf/llama.py")]
