"""What `torch.compile` is not to trace: it breaks a compiled model's graph there and runs it as it is."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def untraced(function: Function) -> Function:
    """A decorator. Where nothing is being compiled it calls the function at once: torch's wrapper costs 3 us a call."""
    disable: Callable[[Function], Any] = torch.compiler.disable
    disabled = disable(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return disabled(*args, **kwargs) if torch.compiler.is_compiling() else function(*args, **kwargs)

    return cast(Function, call)
