"""Checks the Python in the docs: every block compiles, and all but those marked `no-run` run, page by page.

    python docs/check.py            # all pages
    python docs/check.py reduce     # one

A page starts with the names the quickstart leaves: `hired`, `model`, `processor`, `image`, `prompt`, `inputs`.
"""

import contextlib
import os
import re
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
BLOCK = re.compile(r"^```python(?P<mark> no-run)?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)")


def blocks(page: Path) -> list[tuple[bool, str]]:
    """(whether it runs, code) of every Python block of a page, at its line in the page."""
    text = page.read_text()
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code"))
        found.append((match["mark"] is None, "\n" * line + match["code"]))
    return found


def anchors(page: Path) -> set[str]:
    """The names of the page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    found = []
    for path, anchor in LINK.findall(page.read_text()):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(f"{page.name}: broken link {path}{'#' + anchor if anchor else ''}")
    return found


def main() -> int:
    wanted = [HERE / f"{name}.md" for name in sys.argv[1:]] or sorted(HERE.glob("*.md"))
    problems = [line for page in wanted for line in broken(page)]
    start: dict = {}
    for _, code in (block for block in blocks(HERE / "quickstart.md") if block[0]):
        with contextlib.redirect_stdout(None):
            exec(compile(code, "quickstart.md", "exec"), start)
    for page in wanted:
        names = dict(start)
        for runs, code in blocks(page):
            compiled = compile(code, str(page), "exec")
            if runs:
                with contextlib.redirect_stdout(None):
                    exec(compiled, names)
        print(f"{page.name}: {len(blocks(page))} blocks")
    print(*problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        code = main()
    sys.exit(code)
