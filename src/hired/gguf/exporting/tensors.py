"""Tensors as llama.cpp wants them: their names, the order of their rows, and their bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hired.errors import UnsupportedModelError
from hired.gguf.architectures import TextFacts

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["Entry", "entries", "stored", "values"]


@dataclass(frozen=True)
class Entry:
    """A tensor of the file.

    Attributes:
        name: in the file.
        source: in the weights, None for what is worked out.
        shape: as torch has it.
        dtype: "f32", "f16", "bf16" or "q8_0".
    """

    name: str
    source: str | None
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Bytes in the file."""
        count = math.prod(self.shape)
        return count // 32 * 34 if self.dtype == "q8_0" else count * (4 if self.dtype == "f32" else 2)


def entries(facts: TextFacts, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> list[Entry]:
    """The tensors of a file, in order.

    Args:
        facts: of the language model.
        shapes: of its weights, named as in a causal language model of transformers' (``model.layers.0. ...``).
        dtype: of matrices; what has one dimension is float32, and what 8 bits do not fit float16.

    Raises:
        UnsupportedModelError: a weight that the architecture has none for.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    kind = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == facts.architecture)
    known = get_tensor_name_map(kind, facts.layers)
    found = []
    if facts.scaling is not None and facts.scaling.kind == "llama3":
        found.append(Entry("rope_freqs.weight", None, (facts.head_dim // 2,), "f32"))
    for source, shape in shapes.items():
        name = known.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise UnsupportedModelError(
                f"the weight {source!r} has no place in llama.cpp's {facts.architecture!r}: export the model as its"
                " checkpoint is, without adapters or quantised layers"
            )
        found.append(Entry(name, source, shape, _dtype(shape, dtype)))
    return found


def _dtype(shape: tuple[int, ...], dtype: str) -> str:
    if len(shape) < 2:
        return "f32"
    return "f16" if dtype == "q8_0" and shape[-1] % 32 else dtype


def values(facts: TextFacts, config: Any, entry: Entry, weights: Any) -> Tensor:
    """What a tensor of the file holds, on the CPU, in the dtype of its source.

    Args:
        facts: of the language model.
        config: its configuration, for RoPE.
        entry: the tensor.
        weights: gives a tensor by its name, such as `hired.gguf.exporting.weights.InMemory`.
    """
    if entry.source is None:
        return _frequencies(config)
    found: Tensor = weights.read(entry.source)
    if facts.facts.paired and ".q_proj." in entry.source:
        return _paired(found, facts.heads)
    if facts.facts.paired and ".k_proj." in entry.source:
        return _paired(found, facts.key_value_heads)
    if facts.facts.centred and entry.source.endswith("norm.weight"):
        return found.float() + 1
    return found


def _paired(rows: Tensor, heads: int) -> Tensor:
    """The rows of every head with those that RoPE turns together beside each other: 0, n/2, 1, n/2 + 1 ..."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def _frequencies(config: Any) -> Tensor:
    """(head size / 2,) by how much each of RoPE's frequencies is slowed down."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    text = config.get_text_config()
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](text, device=torch.device("cpu"))
    size = 2 * len(scaled)
    plain = text.rope_parameters["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
    slowed: Tensor = plain / scaled
    return slowed


def stored(tensor: Tensor, dtype: str) -> np.ndarray[Any, Any]:
    """The bytes of a tensor.

    Args:
        tensor: on the CPU.
        dtype: as in `Entry`.

    Raises:
        UnsupportedModelError: float16 cannot hold its values.
    """
    import torch
    from gguf import GGMLQuantizationType, quants

    if dtype == "bf16":
        return tensor.to(torch.bfloat16).contiguous().view(torch.uint16).numpy()
    if dtype == "q8_0":
        blocks: np.ndarray[Any, Any] = quants.quantize(tensor.float().numpy(), GGMLQuantizationType.Q8_0)
        return blocks
    if dtype == "f32":
        return tensor.float().contiguous().numpy()
    half = tensor.to(torch.float16).contiguous()
    if not torch.isfinite(half).all():
        raise UnsupportedModelError("the weights hold values that float16 does not: export as bf16 or f32")
    return half.numpy()
