"""Models by name: the one that ships, a directory, or a hub id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hired.caching import cache_argument
from hired.errors import ModelLoadError
from hired.greedy import repaired, turn
from hired.loading.checkpoints import load_config, load_model, load_processor
from hired.loading.devices import usable_device
from hired.loading.quantized import check_load, quantization, usable_for
from hired.loading.strangers import quiet, strangers
from hired.machine import synchronize
from hired.tiny import WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DTYPES", "Loaded", "load", "source_of"]

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
        synchronize(self.model.device)

    def turn(self, inputs: Mapping[str, Any], max_new_tokens: int, streamer: Any = None) -> tuple[Tensor, Any]:
        """(1, prompt + new) int64 ids of a greedy answer, and what `further` wants for a question behind it.

        Args:
            inputs: What `hired.reduce` or `further` returned.
            max_new_tokens: The longest answer.
            streamer: Told of every token.
        """
        return turn(self.model, self.processor, inputs, max_new_tokens, streamer)

    def further(self, ids: Tensor, cache: Any) -> Mapping[str, Any]:
        """The inputs of a turn that follows another.

        Args:
            ids: (1, length) int64, what was said and what is asked now.
            cache: What `turn` returned beside its ids; it is used up.
        """
        import torch

        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), cache_argument(self.model): cache}


def load(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    load: str | None = None,
) -> Loaded:
    """Load a model and its processor.

    Args:
        name: ``tiny``, a directory written by ``save_pretrained``, or a hub id.
        device: ``auto`` (a GPU where there is one), or what `torch.device` takes.
        dtype: One of `DTYPES`; ``auto`` is the checkpoint's own.
        trust_remote_code: Run code that comes with the checkpoint, where it needs that.
        load: ``4bit`` or ``8bit`` quantises the LLM's linear layers with bitsandbytes; None leaves them as they are.
            `dtype` is then that of everything else, and what is computed in.

    Raises:
        ModelLoadError: The model, the device, the dtype or the quantisation cannot be had, or the checkpoint is not
            whole.
        MissingDependencyError: `load` needs what is not installed.
        UnsupportedModelError: A model of no known family.
    """
    if dtype not in DTYPES:
        raise ModelLoadError(f"unknown dtype {dtype!r}: use one of {', '.join(DTYPES)}")
    check_load(load)
    with quiet():
        target = usable_device(device)
        if load is not None:
            usable_for(load, target)
        if name == "tiny" and load is None:
            model, processor = _tiny(target, dtype)
        elif name == "tiny":
            model, processor = _read(source_of(name), name, target, "float32" if dtype == "auto" else dtype, load=load)
        else:
            model, processor = _read(source_of(name), name, target, dtype, trust_remote_code, load)
    return Loaded(name, model.eval(), processor)


def _tiny(device: Any, dtype: str) -> tuple[Any, Any]:
    """The model that ships."""
    import hired

    return hired.load_tiny(device=device) if dtype == "auto" else hired.load_tiny(dtype, device)


def source_of(name: str) -> str:
    """The directory or hub id that a name stands for.

    Args:
        name: ``tiny``, a directory, or a hub id.

    Raises:
        ModelLoadError: It names a path that is no model directory.
    """
    if name == "tiny":
        return str(WEIGHTS)
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
    return str(path) if path.exists() else name


def _read(
    source: str, name: str, device: Any, dtype: str, trust: bool = False, load: str | None = None
) -> tuple[Any, Any]:
    """A checkpoint, from disk or from the hub."""
    settings: dict[str, Any] = {"dtype": dtype}
    if _spread(device):
        settings["device_map"] = "auto"
    config = load_config(source, name, trust)  # before its weights are read
    if load is not None:
        settings.setdefault("device_map", {"": device})  # such weights cannot be moved afterwards
        settings["quantization_config"] = quantization(load, config, name, dtype)
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
