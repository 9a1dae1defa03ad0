"""Models by name: the one that ships, a directory, or a hub id."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hired.errors import ModelLoadError
from hired.greedy import repaired
from hired.pretrained import load_config, load_model, load_processor, strangers, usable_device
from hired.prompts import prompt

__all__ = ["DTYPES", "Loaded", "check_settings", "load", "progress", "prompt"]

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Loaded:
    """A model ready to run.

    Attributes:
        name: As it was asked for.
        model: The model, in eval mode, on its device.
        processor: Its processor.
    """

    name: str
    model: Any
    processor: Any

    @property
    def kind(self) -> str:
        """The type of device that the inputs go to: ``cpu``, ``cuda``, ``mps``."""
        return str(self.model.device.type)

    def synchronize(self) -> None:
        """Wait until the device has done what it was given, so that clocks tell the truth."""
        import torch

        if self.kind == "cuda":
            torch.cuda.synchronize()
        elif self.kind == "mps":
            torch.mps.synchronize()


def check_settings(budget: int | float | str, alpha: float, method: str, variant: str) -> int | float:
    """The budget, a number for sure, before anything is loaded.

    Raises:
        BudgetError: Settings that no picture could do with.
    """
    from hired.core.budget import Budget, check_alpha
    from hired.methods import resolve

    Budget.parse(budget)
    resolve(method, variant, check_alpha(alpha))
    return cast(float, budget)


def load(name: str, device: str = "auto", dtype: str = "auto", trust_remote_code: bool = False) -> Loaded:
    """Load a model and its processor.

    Args:
        name: ``tiny``, a directory written by ``save_pretrained``, or a hub id.
        device: ``auto`` (a GPU where there is one), or what `torch.device` takes.
        dtype: One of `DTYPES`; ``auto`` is the checkpoint's own.
        trust_remote_code: Run code that comes with the checkpoint, where it needs that.

    Raises:
        ModelLoadError: The model, the device or the dtype cannot be had, or the checkpoint is not whole.
        UnsupportedModelError: A model of no known family.
    """
    if dtype not in DTYPES:
        raise ModelLoadError(f"unknown dtype {dtype!r}: use one of {', '.join(DTYPES)}")
    with progress(f"Loading {name}"):
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        target = usable_device(device)
        if name == "tiny":
            model, processor = _tiny(target, dtype)
        else:
            model, processor = _pretrained(name, target, dtype, trust_remote_code)
    return Loaded(name, model.eval(), processor)


@contextlib.contextmanager
def progress(words: str) -> Iterator[None]:
    """A spinner on standard error while the block runs; nothing where that is not a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(words):
        yield


def _tiny(device: Any, dtype: str) -> tuple[Any, Any]:
    """The model that ships."""
    import hired

    return hired.load_tiny(device=device) if dtype == "auto" else hired.load_tiny(dtype, device)


def _pretrained(name: str, device: Any, dtype: str, trust: bool) -> tuple[Any, Any]:
    """A checkpoint, from disk or from the hub."""
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    path = Path(name).expanduser()
    if not name.strip():
        raise ModelLoadError("the name of the model is empty")
    if path.is_file():
        raise ModelLoadError(f"{name!r} is a file: name the directory that holds config.json")
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelLoadError(f"{name!r} holds no config.json: it is not a model directory")
    if not path.exists() and looks_local:
        raise ModelLoadError(f"no model directory {name!r}")
    source = str(path) if path.exists() else name
    settings: dict[str, Any] = {"dtype": dtype}
    if _spread(device):
        settings["device_map"] = "auto"
    load_config(source, name, trust)  # before its weights are read
    processor = load_processor(source, name, trust)
    with strangers(name, "read the generation settings of"):
        generation_config = repaired(source)
    if generation_config is not None:
        settings["generation_config"] = generation_config
    model = load_model(source, name, trust, **settings)
    if "device_map" in settings:
        return model, processor
    with strangers(name, f"move to {device} the model"):
        return model.to(device), processor


def _spread(device: Any) -> bool:
    """Whether to let accelerate place the layers: several GPUs, and no single one was asked for."""
    import importlib.util

    import torch

    several = device.type == "cuda" and device.index is None and torch.cuda.device_count() > 1
    return several and importlib.util.find_spec("accelerate") is not None
