"""``hired ask --chat``: questions that follow, answered on the cache of the first, in which the pictures are."""

from __future__ import annotations

import sys

from hired.cli import output
from hired.cli.answering import Answer, How, costs, follow
from hired.errors import HiredError, InputsError
from hired.loading import Loaded
from hired.machine import peak_memory_mb

__all__ = ["chat"]


def chat(loaded: Loaded, result: Answer, how: How) -> None:
    """Answer the lines of standard input, one at a time, until it ends; empty ones are passed over.

    Args:
        loaded: The model.
        result: The answer to the first question.
        how: How long answers may be.

    Raises:
        HiredError: The model takes no such question. On a terminal a question that will not do is told and asked for
            again.
    """
    while (question := _next()) is not None:
        try:
            how.check(question)
            how.check_for(loaded.processor, question)
        except InputsError as error:
            if not _asked_for():
                raise
            output.warn(str(error))
            continue
        result = follow(loaded, result, question, how, echo=True)
        output.faint(costs(result, peak_memory_mb(loaded.kind)))


def _next() -> str | None:
    """The next question, None at the end."""
    if sys.stdin is None:
        raise HiredError("standard input is closed: --chat reads questions from it")
    while True:
        if _asked_for():
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return None
        if line.strip():
            return line.strip()


def _asked_for() -> bool:
    """Whether a person sits there."""
    return sys.stdin.isatty() and sys.stdout.isatty()
