"""Where the weights of a language model are read from, one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hired.errors import UnsupportedModelError
from hired.gguf.names import language_name
from hired.loading.checkpoints import check_complete
from hired.loading.shards import Shards

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["InMemory", "OnDisk"]


class InMemory:
    """The weights of a loaded model, which stay where they are.

    Attributes:
        shapes: of every weight of the language model, named as in a causal language model of transformers'.
        stored: the dtype that most of them have, "f32", "f16" or "bf16".
    """

    def __init__(self, model: Any, tied: bool) -> None:
        """Takes a vision-language model or a language model.

        Raises:
            UnsupportedModelError: weights that are not at hand, are quantised, or lack an LM head.
        """
        if getattr(model, "peft_config", None) or getattr(model.config, "quantization_config", None):
            raise UnsupportedModelError("the model has adapters or quantised layers: merge them, or load it as it is")
        self._tensors = _named(model, tied)
        if any(tensor.device.type == "meta" for tensor in self._tensors.values()):
            raise UnsupportedModelError("weights of the model are offloaded: load it on one device")
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        self.stored = _short(next(iter(self._tensors.values())).dtype)

    def read(self, name: str) -> Tensor:
        """A weight, on the CPU."""
        return self._tensors[name].detach().cpu()


class OnDisk:
    """The weights of a checkpoint, read when they are needed; attributes are those of `InMemory`."""

    def __init__(self, source: str, name: str, config: Any, tied: bool) -> None:
        """Finds the language model's weights in a checkpoint's files, downloading those that hold them.

        Args:
            source: a directory or a hub id.
            name: what errors call it.
            config: its configuration.
            tied: the LM head is the embeddings.

        Raises:
            ModelLoadError: weights are missing or of another shape than the configuration tells.
        """
        from hired.costs.shapes import meta_model

        self._shards = Shards(source, name)
        wanted = {key: tuple(value.shape) for key, value in _named(meta_model(config), tied).items()}
        known = {language_name(each): each for each in self._shards.names}
        self._names = {key: known[key] for key in wanted if key in known}
        self._shards.fetch(self._names.values())
        self.shapes = {key: self._shards.shape(each) for key, each in self._names.items()}
        wrong = [(key, shape, wanted[key]) for key, shape in self.shapes.items() if shape != wanted[key]]
        check_complete({"missing_keys": [key for key in wanted if key not in known], "mismatched_keys": wrong}, name)
        self.stored = _short(self.read(next(iter(self._names))).dtype)

    def read(self, name: str) -> Tensor:
        """A weight, on the CPU."""
        return self._shards.read(self._names[name])


def _named(model: Any, tied: bool) -> dict[str, Tensor]:
    """The language model's parameters, named as in a causal language model of transformers'."""
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    found = {f"model.{name}": value for name, value in decoder.named_parameters()}
    if not tied:
        if head is None:
            raise UnsupportedModelError(f"{type(model).__name__} has no LM head: export the model that has it")
        found |= {f"lm_head.{name}": value for name, value in head.named_parameters()}
    return found


def _short(dtype: Any) -> str:
    return {"torch.float16": "f16", "torch.bfloat16": "bf16"}.get(str(dtype), "f32")
