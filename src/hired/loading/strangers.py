"""What is raised over other people's checkpoints, as one error that names the checkpoint."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

from hired.errors import HiredError, ModelLoadError

__all__ = ["quiet", "reason", "strangers"]

_CAUSES = 4
"""Causes of an exception that are looked at."""


@contextlib.contextmanager
def strangers(name: str, doing: str, through: type[Exception] = BrokenPipeError) -> Iterator[None]:
    """Turns whatever is raised over a checkpoint of somebody else's into one error that names it.

    Args:
        name: of the checkpoint.
        doing: what was attempted, such as "load the model".
        through: what is raised as it is.

    Raises:
        ModelLoadError: for every exception that is none of this library's own.
    """
    try:
        with quiet():
            yield
    except (HiredError, through):
        raise
    except Exception as error:  # anything can come of a broken or absent checkpoint
        if any("trust_remote_code=True" in str(cause) for cause in _causes(error)):
            raise ModelLoadError(
                f"{name!r} needs code of its own to be run, which can do anything that you can: read it, and add"
                " --trust-remote-code if you trust it"
            ) from error
        raise ModelLoadError(f"cannot {doing} {name!r}: {reason(error)}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, log or bars of transformers' or the hub's inside: what is wrong is said once, by an error."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as bars

    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub", "bitsandbytes")]
    levels = [logger.level for logger in loggers]
    shown, hubs = bars.is_progress_bar_enabled(), not are_progress_bars_disabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bars.disable_progress_bar()
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the hub warns where the environment forbids bars
            if shown:
                bars.enable_progress_bar()  # and the hub's
            if hubs:
                enable_progress_bars()
            else:
                disable_progress_bars()


def reason(error: BaseException) -> str:
    """What an exception says and what caused it, on one line.

    The first line of a loader's error often says only that something failed; why is in the next one or in the cause.
    """
    said: list[str] = []
    for cause in _causes(error):
        text = _words(cause)
        if not any(text in other or other in text for other in said):
            said.append(text)
    text = "; ".join(said)
    return text if len(text) <= 320 else text[:317] + "..."


def _words(error: BaseException) -> str:
    """The first line, the second where the first leads up to it; behind the kind where the words are about Python."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    if text.endswith(":") and len(lines) > 1:
        text += f" {lines[1]}"
    text = text if len(text) <= 200 else text[:197] + "..."
    kind = type(error).__name__
    if not text:
        return kind
    return text if isinstance(error, OSError) or type(error) in (ValueError, RuntimeError) else f"{kind}: {text}"


def _causes(error: BaseException) -> list[BaseException]:
    """An exception and what it was raised from, or while handling what."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found and len(found) < _CAUSES:
        found.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return found
