"""Which of lmms-eval's model classes runs a checkpoint, and what that class wants to be given."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from hired.errors import HiredError, MissingDependencyError, ModelLoadError, UnsupportedModelError

__all__ = ["BASES", "TESTED", "Base", "accepted", "base_of", "check_code", "class_of", "require_lmms_eval"]

TESTED = ">=0.7.3,<0.8"
"""The lmms-eval that the plug-in was tested with; its model classes change from one minor release to the next."""

_INSTALL = "install hired-vlm with its lmms extra (in a checkout: pip install '.[lmms]')"


@dataclass(frozen=True)
class Base:
    """One of lmms-eval's model classes.

    Attributes:
        name: as `--model` of lmms-eval names it.
        types: `config.model_type` of the checkpoints that it runs.
        runs_code: it runs Python code that comes with a checkpoint without being asked to (`trust_remote_code=True`).
    """

    name: str
    types: tuple[str, ...]
    runs_code: bool = False


BASES = (
    Base("llava_hf", ("llava_next", "llava", "llava_onevision")),
    Base("qwen2_vl", ("qwen2_vl",)),
    Base("qwen2_5_vl", ("qwen2_5_vl",)),
    Base("qwen3_vl", ("qwen3_vl",), runs_code=True),
    Base("internvl_hf", ("internvl",)),
    Base("mistral3_vl", ("mistral3",), runs_code=True),
    Base("lfm2_5_vl", ("lfm2_vl",), runs_code=True),
)
"""Classes that were tested with `hired.enable`, each on small models."""


def require_lmms_eval() -> None:
    """Refuses to go on without lmms-eval, or with one that the plug-in was not tested with; imports nothing of it.

    Raises:
        MissingDependencyError: lmms-eval is not installed.
        UnsupportedModelError: a version outside `TESTED`.
    """
    if importlib.util.find_spec("lmms_eval") is None:
        raise MissingDependencyError(f"the benchmarks need lmms-eval: {_INSTALL}")
    version = metadata.version("lmms_eval")
    found = re.match(r"0\.7\.(\d+)", version)
    if found is None or int(found[1]) < 3:
        raise UnsupportedModelError(
            f"lmms-eval {version} is outside the range {TESTED} that HiRED's plug-in was tested with: install"
            f' "lmms_eval{TESTED}"'
        )


def base_of(model_type: str, name: str) -> Base:
    """The class that runs a checkpoint of a `config.model_type`; `name` is what an error calls the checkpoint.

    Raises:
        UnsupportedModelError: none of lmms-eval's classes was tested with it.
    """
    for base in BASES:
        if model_type in base.types:
            return base
    known = ", ".join(kind for base in BASES for kind in base.types)
    raise UnsupportedModelError(
        f"{name} is a {model_type!r}, for which none of lmms-eval's classes was tested under a budget (tested:"
        f" {known}); name one that runs it with base=..."
    )


def class_of(name: str, simple: bool) -> Any:
    """One of lmms-eval's model classes.

    Args:
        name: as `--model` of lmms-eval names it.
        simple: the class of plain prompts, where there is one; else that of chats, where there is one.

    Raises:
        HiredError: a name that lmms-eval does not know.
        MissingDependencyError: something that the class imports is not installed.
    """
    from lmms_eval.models import MODEL_REGISTRY_V2

    known = [each for each in MODEL_REGISTRY_V2.list_model_names() if each != "hired"]
    if name not in known:
        raise HiredError(f"lmms-eval has no model class {name!r} to put under a budget: see `lmms-eval models`")
    try:
        return MODEL_REGISTRY_V2.get_model_class(name, force_simple=simple)
    except ImportError as error:
        raise MissingDependencyError(f"lmms-eval's {name} cannot be imported ({error}): {_INSTALL}") from error


def accepted(base: Any, given: Mapping[str, Any], name: str) -> None:
    """Refuses arguments that a class of lmms-eval has no name for, which some of them take and ignore.

    Raises:
        HiredError: such an argument.
    """
    known = inspect.signature(base).parameters
    unknown = [key for key in given if key not in known or key == "kwargs"]
    if unknown:
        ours = "budget, base, alpha, method, variant, newlines, positions, encoder_budget"
        theirs = ", ".join(key for key in known if key != "kwargs")
        raise HiredError(f"model_args: no {', '.join(unknown)} in HiRED ({ours}) or in lmms-eval's {name} ({theirs})")


def check_code(source: str, name: str) -> None:
    """Refuses a checkpoint that brings Python code, for a class that would run it unasked.

    Args:
        source: a directory or a hub id.
        name: what the error calls it.

    Raises:
        ModelLoadError: it brings code.
    """
    import json
    from pathlib import Path

    from transformers.utils import cached_file

    from hired.loading.strangers import strangers

    for file in ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        with strangers(name, "load the model"):
            found = cached_file(source, file, _raise_exceptions_for_missing_entries=False)
            brings = found is not None and "auto_map" in json.loads(Path(found).read_text(encoding="utf-8"))
        if brings:
            raise ModelLoadError(
                f"{name!r} brings code of its own ({file}), which lmms-eval's class for it would run and which can do"
                " anything that you can: read it, and add trust_remote_code=True (--trust-remote-code) if you trust it"
            )
