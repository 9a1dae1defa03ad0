"""Checkpoints of other people: loaded whole or not at all, and no code of theirs is run unless that was asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hired.errors import ModelLoadError
from hired.loading.strangers import strangers

__all__ = ["check_complete", "load_config", "load_model", "load_processor"]


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


def _listed(count: int, what: str, shown: Sequence[str]) -> str:
    """`20 weights (a, b, c and 17 more)`."""
    more = count - len(shown[:3])
    what = what.replace("weights", "weight", 1) if count == 1 else what
    return f"{count:,} {what} ({', '.join(shown[:3])}{f' and {more:,} more' if more else ''})"


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes)) or "a scalar"
