"""Where the weights of a language model are read from, one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hired.errors import UnsupportedModelError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["InMemory"]


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
        self._tensors = _named(model, tied)
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        self.stored = _short(next(iter(self._tensors.values())).dtype)

    def read(self, name: str) -> Tensor:
        """A weight, on the CPU."""
        return self._tensors[name].detach().cpu()


def _named(model: Any, tied: bool) -> dict[str, Tensor]:
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    if getattr(model, "peft_config", None) or getattr(model.config, "quantization_config", None):
        raise UnsupportedModelError("the model has adapters or quantised layers: merge them, or load it as it is")
    found = {f"model.{name}": value for name, value in decoder.named_parameters()}
    if not tied:
        if head is None:
            raise UnsupportedModelError(f"{type(model).__name__} has no LM head: export the model that has it")
        found |= {f"lm_head.{name}": value for name, value in head.named_parameters()}
    if any(value.device.type == "meta" for value in found.values()):
        raise UnsupportedModelError("weights of the model are offloaded: load it on one device")
    return found


def _short(dtype: Any) -> str:
    return {"torch.float16": "f16", "torch.bfloat16": "bf16"}.get(str(dtype), "f32")
