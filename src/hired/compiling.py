"""What `torch.compile` is not to trace: it breaks a compiled model's graph there and runs it as it is."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def untraced(function: Function) -> Function:
    """A decorator."""
    disable: Callable[[Function], Any] = torch.compiler.disable
    return cast(Function, disable(function))
