"""Settings for all tests: one thread (the models are tiny), and property tests that are the same on every run.

Where TORCHVISION_TESTS names a file, the ids of tests that were skipped for want of torchvision are written there.
"""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("fixed", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("explore", settings.get_profile("fixed"), derandomize=False, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

SKIPS = {
    "torchvision": "need torchvision (make test-families runs them)",
    "gradio": "need Gradio (make test-page runs them)",
    "playwright": "need playwright (make test-page runs them)",
    "chromium": "need a chromium (Debian's, or playwright install chromium)",
    "llama.cpp": "need llama.cpp (make test-gguf runs them)",
    "CUDA": "need a CUDA GPU (tests/test_cuda.py runs where there is one)",
}
"""What is said of skipped tests, by a word of their reason."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def skipped(reasons):
    """One line that says why tests were skipped, and what runs them."""
    counts = Counter(
        next(
            (words for key, words in SKIPS.items() if key in reason),
            f"for another reason ({reason.removeprefix('Skipped: ')})",
        )
        for reason in reasons
    )
    return "Skipped: " + "; ".join(f"{count:,} {words}" for words, count in counts.most_common())


def pytest_terminal_summary(terminalreporter):
    reports = terminalreporter.stats.get("skipped", [])
    if path := os.environ.get("TORCHVISION_TESTS"):
        ids = {report.nodeid for report in reports if "torchvision" in str(report.longrepr)}
        Path(path).write_text("".join(f"{each}\n" for each in sorted(ids)))
    if reports:
        terminalreporter.write_line(
            skipped(
                report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr) for report in reports
            )
        )


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        from hired.cli import main

        capsys.readouterr()  # what the test itself said so far, such as the bars of a model it saved
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
