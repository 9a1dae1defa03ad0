"""The command ``hired``. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from hired.errors import HiredError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after ``hired``; those of this process if None.

    Returns:
        The exit code: 0, 2 after an error of the user's or of this library's own kind (one line on
        standard error, no traceback), 130 after an interruption.
    """
    from hired.cli.app import app

    try:
        given = None if arguments is None else list(arguments)
        code = app(args=given, prog_name="hired", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except HiredError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone; give the interpreter something else to flush into.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if type(error).__name__ == "Abort":
            return 130
        words = getattr(error, "format_message", None)  # what typer raises on wrong usage
        if words is None:
            raise
        return _failed(f"{words()} (see hired --help)")


def _failed(message: str) -> int:
    """Say what is wrong, on one line."""
    print(f"hired: {' '.join(message.split())}", file=sys.stderr)
    return 2
