"""Checkpoints of other people: loaded whole or not at all, and no code of theirs is run unless that was asked for."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hired.errors import HiredError, ModelLoadError

__all__ = [
    "check_complete",
    "load_config",
    "load_model",
    "load_processor",
    "quiet",
    "reason",
    "strangers",
    "usable_device",
]

_CAUSES = 4
"""Causes of an exception that are looked at."""


def load_config(source: str, name: str, trust_remote_code: bool = False) -> Any:
    """The configuration of a checkpoint, of a family that is known, with sizes that can be.

    Args:
        source: a directory or a hub id.
        name: what errors call it.
        trust_remote_code: run code that comes with it.

    Raises:
        ModelLoadError: it cannot be read.
        UnsupportedModelError: a model of no known family.
    """
    from transformers import AutoConfig, PreTrainedConfig

    from hired.families import family_for
    from hired.families.checking import check_config

    with strangers(name, "load the model"):
        held, _ = PreTrainedConfig.get_config_dict(source)
        check_config(held, name)  # before a class divides by what it holds
        if not trust_remote_code:
            _refuse_kernels(held, name)
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    family_for(config.model_type, repr(name))
    check_config(config, name)
    return config


def _refuse_kernels(held: dict[str, Any], name: str) -> None:
    """Refuses a `config.json` that names an attention kernel of the hub's, which is code that transformers would fetch.

    Raises:
        ModelLoadError: it does.
    """
    for part in (held, held.get("text_config"), held.get("vision_config")):
        for key in ("attn_implementation", "_attn_implementation"):
            kernel = part.get(key) if isinstance(part, dict) else None
            if isinstance(kernel, str) and "/" in kernel:
                raise ModelLoadError(
                    f"{name!r} asks for the attention kernel {kernel!r}, code that would be fetched and run: add"
                    " --trust-remote-code if you trust it"
                )


def load_processor(source: str, name: str, trust_remote_code: bool = False, **settings: Any) -> Any:
    """The processor of a checkpoint.

    Args:
        source: a directory or a hub id.
        name: what errors call it.
        trust_remote_code: run code that comes with it.
        **settings: others of `from_pretrained`, such as `revision`.

    Raises:
        ModelLoadError: it cannot be read, or is none for pictures and text.
    """
    from transformers import AutoConfig, AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    with strangers(name, "load the processor of"):
        settings["trust_remote_code"] = trust_remote_code
        config = AutoConfig.from_pretrained(source, **settings)
        if type(config) in PROCESSOR_MAPPING and not _names_processor(source, settings.get("revision")):
            # The auto class would not hand on that nothing is to be asked.
            processor = PROCESSOR_MAPPING[type(config)].from_pretrained(source, **settings)
        else:
            processor = AutoProcessor.from_pretrained(source, **settings)
    if getattr(processor, "image_processor", None) is None:
        raise ModelLoadError(f"{name!r} has no image processor: it is not a vision-language model")
    if getattr(processor, "tokenizer", None) is None:
        raise ModelLoadError(f"{name!r} has no tokenizer: it is not a vision-language model")
    return processor


def _names_processor(source: str, revision: str | None) -> bool:
    """Whether a checkpoint's files name a class of transformers' for its processor, or bring one."""
    from transformers.models.auto.processing_auto import processor_class_from_name
    from transformers.utils import cached_file

    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        found = cached_file(source, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        if found is not None:
            told = json.loads(Path(found).read_text(encoding="utf-8"))
            named = told.get("processor_class")
            if (named and processor_class_from_name(named)) or "AutoProcessor" in (told.get("auto_map") or {}):
                return True
    return False


def load_model(source: str, name: str, trust_remote_code: bool = False, **settings: Any) -> Any:
    """The model of a checkpoint, every weight of which was in it and had the right shape.

    Args:
        source: a directory or a hub id.
        name: what errors call it.
        trust_remote_code: run code that comes with it.
        **settings: others of `from_pretrained`, such as `dtype`.

    Raises:
        ModelLoadError: it cannot be read, or weights are missing or of another shape.
    """
    from transformers import AutoModelForImageTextToText

    with strangers(name, "load the model"):
        model, info = AutoModelForImageTextToText.from_pretrained(
            source,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in `info` then, with their names
            **settings,
        )
    check_complete(info, name)
    return model


def check_complete(info: dict[str, Any], name: str) -> None:
    """Refuses a model some of whose weights are not those of its checkpoint.

    transformers gives random values to weights that it does not find. Weights that are tied to others, or that a class
    declares needless, it does not report.

    Args:
        info: what `from_pretrained` gives with `output_loading_info`.
        name: what the error calls the checkpoint.

    Raises:
        ModelLoadError: weights are missing or of another shape.
    """
    mismatched = sorted((str(key), tuple(found), tuple(wanted)) for key, found, wanted in info["mismatched_keys"])
    names = {key for key, _, _ in mismatched}
    missing = sorted(str(key) for key in info["missing_keys"] if key not in names)
    said = []
    if missing:
        said.append(f"lacks {_listed(len(missing), 'weights', missing)}")
    if mismatched:
        shown = [f"{key} is {_shape(found)} in place of {_shape(wanted)}" for key, found, wanted in mismatched[:3]]
        said.append(f"has {_listed(len(mismatched), 'weights of another shape than its config.json tells', shown)}")
    if said:
        raise ModelLoadError(f"{name!r} {' and '.join(said)}: download or save it again")


def usable_device(name: Any) -> Any:
    """The device of a name, tried out; ``auto`` is a GPU where there is one.

    Raises:
        ModelLoadError: PyTorch knows no such device, or cannot use it here.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except Exception as error:  # RuntimeError, AssertionError, NotImplementedError: it depends on the build
        raise ModelLoadError(f"device {str(name)!r} cannot be used: {reason(error)}") from error
    return device


def _listed(count: int, what: str, shown: Sequence[str]) -> str:
    """`20 weights (a, b, c and 17 more)`."""
    more = count - len(shown[:3])
    what = what.replace("weights", "weight", 1) if count == 1 else what
    return f"{count:,} {what} ({', '.join(shown[:3])}{f' and {more:,} more' if more else ''})"


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes)) or "a scalar"


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
    """No warnings and no log of transformers' or the hub's inside: what is wrong is said once, by an error."""
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


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
