"""What a check says, and how its steps become lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hired.errors import HiredError
from hired.loading.strangers import quiet, reason

__all__ = ["FAILED", "PASSED", "TOLD", "Failure", "Line", "line"]

PASSED, FAILED, TOLD = "ok", "failed", "told"
"""States of a line; what is told is not judged."""


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        name: Of the step.
        state: `PASSED`, `FAILED` or `TOLD`.
        says: What was found, or what is wrong.
    """

    name: str
    state: str
    says: str


class Failure(Exception):
    """A step found something wrong; its words say what."""


def line(name: str, step: Callable[[], str], state: str = PASSED) -> Line:
    """The line of a step, which returns what it found.

    Whatever a checkpoint of somebody else's raises is what this is to find out, and becomes a failed line.

    Args:
        name: Of the line.
        step: Does the work.
        state: Where nothing is wrong.
    """
    try:
        with quiet():
            return Line(name, state, step())
    except (Failure, HiredError) as error:
        return Line(name, FAILED, str(error))
    except (MemoryError, BrokenPipeError):
        raise
    except Exception as error:
        return Line(name, FAILED, reason(error))
