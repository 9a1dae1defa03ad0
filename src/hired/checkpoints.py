"""Checkpoints as transformers loads them: whole, and without code of their own unless that is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hired.errors import HiredError, ModelLoadError

__all__ = ["check_config", "check_whole", "load_config", "load_model", "load_processor", "reason"]

_SHOWN = 3
_FLAGS = ("trust_remote_code", "--trust-remote-code")


def load_config(source: str, trust: bool = False, name: str | None = None) -> Any:
    """The configuration of a checkpoint.

    Args:
        source: a directory or a hub id.
        trust: run Python code that comes with the checkpoint. It can do whatever this process can.
        name: what an error calls it.

    Raises:
        ModelLoadError: one that cannot be read, that needs code of its own, or whose numbers cannot be a model's.
        UnsupportedModelError: a model of no known family.
    """
    from transformers import AutoConfig

    from hired.families import family_for

    name = name or source
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust)
    except Exception as error:  # the hub's client raises almost anything for a name that it does not know
        raise _told(error, name) from error
    family_for(config.model_type, repr(name))
    check_config(config, name)
    return config


def load_processor(source: str, trust: bool = False, name: str | None = None) -> Any:
    """The processor of a checkpoint; arguments and errors are those of `load_config`."""
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(source, trust_remote_code=trust)
    except Exception as error:
        raise _told(error, name or source) from error


def load_model(source: str, trust: bool = False, name: str | None = None, **settings: Any) -> Any:
    """The model of a checkpoint, with all of its weights.

    Args:
        source, trust, name: as in `load_config`.
        settings: further arguments of `from_pretrained`.

    Raises:
        ModelLoadError: as `load_config`, and for weights that are missing or of another shape, which would be random.
    """
    from transformers import AutoModelForImageTextToText

    name = name or source
    try:
        model, told = AutoModelForImageTextToText.from_pretrained(
            source,
            trust_remote_code=trust,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are told by name, in `check_whole`
            **settings,
        )
    except Exception as error:
        raise _told(error, name) from error
    check_whole(told, name)
    return model


def check_whole(told: dict[str, Any], name: str) -> None:
    """Raises `ModelLoadError` where transformers has filled weights with random numbers.

    Args:
        told: its loading information.
        name: what the error calls the checkpoint.
    """
    other = [entry if isinstance(entry, str) else entry[0] for entry in told.get("mismatched_keys") or ()]
    for keys, what in ((told.get("missing_keys") or (), "are missing"), (other, "are of another shape")):
        if keys:
            raise ModelLoadError(
                f"{name!r} is not whole: {_listed(keys)} {what} in its files, and would be random: get the checkpoint"
                " again, or its config.json is another model's"
            )


def _listed(keys: Iterable[str]) -> str:
    names = sorted(keys)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} weights ({', '.join(names[:_SHOWN])}{more})"


def check_config(config: Any, name: str) -> None:
    """Raises `ModelLoadError` for a configuration whose numbers cannot be those of a model.

    Args:
        config: of a known family.
        name: what the error calls the checkpoint.
    """
    text = config.get_text_config()
    parts = {"vision_config": getattr(config, "vision_config", None), "text_config": text}
    for part, holder in parts.items():
        for key in _LENGTHS:
            value = getattr(holder, key, None)
            if value is None:
                continue
            for number in value if isinstance(value, Sequence) and not isinstance(value, str) else (value,):
                if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                    raise ModelLoadError(f"{name!r}: {part}.{key}={value!r} in config.json must be above 0")
    pinpoints = getattr(config, "image_grid_pinpoints", None)
    if pinpoints is not None and not (isinstance(pinpoints, Sequence) and pinpoints and all(map(_is_pair, pinpoints))):
        raise ModelLoadError(
            f"{name!r}: image_grid_pinpoints={str(pinpoints)[:60]} in config.json must be (height, width) pairs, at"
            " least one"
        )


_LENGTHS = (
    "hidden_size",
    "image_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "patch_size",
    "spatial_merge_size",
    "vocab_size",
)
"""Numbers of a configuration, where it has them, that no model has at 0."""


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 2
        and all(isinstance(number, int) and not isinstance(number, bool) and number > 0 for number in value)
    )


def _told(error: Exception, name: str) -> Exception:
    """What to raise in place of what transformers raised."""
    if isinstance(error, HiredError):
        return error
    if any(flag in str(error) for flag in _FLAGS):
        return ModelLoadError(
            f"{name!r} brings code of its own, which could do anything on this machine: read it, and where you trust it"
            " add --trust-remote-code"
        )
    return ModelLoadError(f"cannot load the model {name!r}: {reason(error)}")


def reason(error: BaseException) -> str:
    """What an exception says first, and what caused it, on one line of at most 400 characters."""
    found: list[str] = []
    each: BaseException | None = error
    while each is not None and len(found) < 3:
        lines = [line.strip() for line in str(each).splitlines() if line.strip()]
        # A KeyError says its key, and no more.
        text = lines[0] if lines and not isinstance(each, LookupError) else ": ".join([type(each).__name__, *lines[:1]])
        if not any(text in other for other in found):
            found.append(text if len(text) <= 200 else text[:197] + "...")
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return " <- ".join(found)[:400]
