"""A look at the `generate` of one model instance, from outside of lmms-eval's classes.

Several of those catch whatever `generate` raises, log it, and score an empty answer. Here the run ends instead.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hired.errors import HiredError
from hired.loading.strangers import reason

__all__ = ["watched"]


class _Raised(BaseException):
    """What `generate` raised, past handlers of `Exception`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextlib.contextmanager
def watched(model: Any, what: str, before: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
    """Tells of every call of `model.generate` while the block runs, and ends the block where one raises.

    Args:
        model: the model; its `generate` is shadowed on this instance, over what `hired.enable` laid there.
        what: whose `generate` an error is told of, such as "llava_hf".
        before: is given the arguments of every call that were given by name.

    Raises:
        HiredError: `generate` raised it, or anything else.
    """
    held = vars(model).get("generate")
    inner = model.generate

    @functools.wraps(inner)
    def generate(*args: Any, **kwargs: Any) -> Any:
        try:
            before(kwargs)
            return inner(*args, **kwargs)
        except Exception as error:
            raise _Raised(error) from error

    model.generate = generate
    try:
        yield
    except _Raised as raised:
        error = raised.error
        if isinstance(error, HiredError):
            raise error from None
        raise HiredError(
            f"generate of lmms-eval's {what} failed, and no score is given: {type(error).__name__}: {reason(error)}"
        ) from error
    finally:
        if held is None:
            del model.generate
        else:
            model.generate = held
