"""Hooks that only look, by which the library is not to notice that it is watched."""

from collections.abc import Callable
from typing import Any


def unnoticed(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook as one of the library's own: callers' hooks make it run the whole encoder."""
    hook.__module__ = "hired.tests"
    return hook
