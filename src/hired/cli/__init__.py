"""The command ``hired``. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence

from hired.errors import HiredError

__all__ = ["main"]

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
# What writing to standard output fails with.
_UNHEARD = {errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF, errno.EFBIG}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after ``hired``; those of this process if None, and then its standard streams and its
            handling of interruptions are this command's too.

    Returns:
        The exit code: 0, 2 after an error (one line on standard error, no traceback), 130 after an interruption.
        With `arguments` given, errors that are faults of this library are raised.
    """
    if arguments is not None:
        return _outcome(list(arguments))
    try:
        from hired.cli import process

        with process.prepared() as interrupted:
            return _outcome(None, interrupted)
    except KeyboardInterrupt:
        return 130
    except HiredError as error:
        return _failed(str(error))


def _outcome(arguments: list[str] | None, interrupted: Callable[[], bool] = lambda: False) -> int:
    """The exit code of a command; an interruption may end as any error, in the middle of an import above all."""
    try:
        code = _call(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):  # rich's way, which calls a reader that has gone a failure
            return 0
        raise
    except Exception as error:
        return 130 if interrupted() else _told(error, arguments is None)


def _told(error: Exception, outermost: bool) -> int:
    """Say on one line what went wrong, and give the exit code.

    Args:
        error: What was raised.
        outermost: Say it of faults of this library too, which are raised otherwise.
    """
    if isinstance(error, HiredError):
        _flush()
        return _failed(str(error))
    # Files are written under their names, and what the network says is told by who asked: this is standard output.
    unheard = isinstance(error, OSError) and error.filename is None and error.errno in _UNHEARD
    _flush(again=not unheard)
    if unheard and isinstance(error, BrokenPipeError):
        return 0  # the reader has gone: it has what it wanted
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY):
        return _failed("out of memory: use smaller pictures, fewer at a time, or a smaller model")
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        if unheard:
            return _failed(f"cannot write to standard output: {reason}")
        return _failed(f"{error.filename}: {reason}" if error.filename else reason)
    words = getattr(error, "format_message", None)  # what typer raises on wrong usage
    if words is not None:
        return _failed(f"{words()} (see hired --help)")
    if not outermost or os.environ.get("HIRED_TRACEBACK"):
        raise error
    what = f"{type(error).__name__}: {error}"
    return _failed(f"{what}; this is a fault of hired: please report it, with what HIRED_TRACEBACK=1 adds")


def _call(arguments: list[str] | None) -> int:
    """Run a command as typer would, but let every error through: its own way takes closed pipes for failures."""
    import typer

    from hired.cli.app import app

    command = typer.main.get_command(app)
    words = sys.argv[1:] if arguments is None else arguments
    try:
        with command.make_context("hired", list(words)) as context:
            command.invoke(context)
    except typer.Exit as done:
        return int(done.exit_code)
    except typer.Abort:
        raise KeyboardInterrupt from None
    return 0


def _flush(again: bool = True) -> None:
    """Send standard output's rest on its way, or, where that fails or is not to be tried `again`, nowhere for good."""
    with contextlib.suppress(OSError, ValueError):
        if again:
            sys.stdout.flush()
            return
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(message: str) -> int:
    """Say what is wrong, on one line."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in message).split())
    if len(line) > 1000:
        line = f"{line[:700]} ... {line[-290:]}"
    with contextlib.suppress(OSError):  # where nobody can be told, the exit code tells
        print(f"hired: {line}", file=sys.stderr, flush=True)
    return 2
