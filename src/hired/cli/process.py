"""What the command does to its own process: streams that are closed or cannot say a letter, and interruptions."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from hired.errors import HiredError

__all__ = ["prepared"]


@contextlib.contextmanager
def prepared() -> Iterator[Callable[[], bool]]:
    """Standard streams that can be used and an interruption that is remembered, for the time of one command.

    Yields:
        Whether the command was interrupted.
    """
    seen: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where it is ignored, as behind nohup
    if ours:
        signal.signal(signal.SIGINT, interrupt)
    try:
        _open_streams()
        yield lambda: bool(seen)
    finally:
        if ours:  # what is left is the interpreter's end, in which another interruption would print a traceback
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _open_streams() -> None:
    """Take the numbers of closed streams, so that no file gets one and is written to by mistake."""
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
            pass
        os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        raise HiredError("standard output is closed: redirect it to /dev/null where nobody wants it")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
