"""Bytes that a model needs: weights and KV cache exactly, activations and the runtime as estimates."""

from __future__ import annotations

from typing import Any

from hired.costs import quants
from hired.costs.flops import LLM, Tower
from hired.errors import HiredError

__all__ = [
    "DTYPES",
    "GPU_CONTEXT",
    "KEPT_BACK",
    "PROCESS",
    "context_bytes",
    "encode_bytes",
    "graph_bytes",
    "head_bytes",
    "kv_bytes",
    "layer_bytes",
    "prefill_bytes",
    "process_bytes",
    "tower_bytes",
    "value_bytes",
    "weight_bytes",
]

DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2, "int4": 2}
"""Bytes of one activation or cached value, by dtype; int4 computes in float16."""

NF4_BLOCK = 64
"""Weights that share one float32 scale in bitsandbytes' NF4, without double quantisation."""

PROCESS = 400_000_000
"""Resident bytes of Python, PyTorch (CPU build), transformers and their kernels beside all tensors, as measured."""

KEPT_BACK = 200_000_000
"""Most bytes of freed blocks that the C library is taken to keep back; it returns large blocks at once."""

CONTEXT_STEP = 256
"""llama.cpp's contexts are made for a multiple of so many tokens."""

PIECE = 512
"""Tokens of a prompt that llama.cpp computes at a time (`n_ubatch`)."""

GPU_CONTEXT = 600_000_000
"""Bytes of a GPU that the CUDA context takes beside PyTorch's allocator; assumed, it depends on card and driver."""


def process_bytes(peak: int) -> int:
    """What a process on a CPU holds beside its tensors.

    Args:
        peak: bytes of activations and KV cache at their peak: about as much lies in holes between them, up to a limit.
    """
    return PROCESS + min(peak, KEPT_BACK)


def value_bytes(dtype: str) -> int:
    """Bytes of one activation.

    Raises:
        HiredError: a dtype that is not known.
    """
    if dtype not in DTYPES:
        raise HiredError(
            f"unknown dtype {dtype!r}: use one of {', '.join(DTYPES)}, or a GGUF type: {', '.join(quants.TYPES)}"
        )
    return DTYPES[dtype]


def weight_bytes(model: Any, dtype: str) -> int:
    """Bytes of all parameters, tied ones once, and buffers.

    int4 means bitsandbytes' NF4 for the linear layers of the LLM, with one float32 scale for 64 weights; encoder,
    projector, embeddings, norms and the LM head stay in float16.

    Args:
        model: the model, or its `meta_model`.
        dtype: one of `DTYPES`.
    """
    from torch import nn

    size = value_bytes(dtype)
    packed = set()
    if dtype == "int4":
        linear = (m for m in model.model.language_model.modules() if isinstance(m, nn.Linear))
        packed = {id(module.weight) for module in linear}
    total: int = sum(_packed(p.numel()) if id(p) in packed else p.numel() * size for p in model.parameters())
    return total + _buffer_bytes(model)


def tower_bytes(model: Any, dtype: str) -> int:
    """Bytes of what is left without the LLM and its head: encoder and projector, parameters and buffers.

    Args:
        model: the model, or its `meta_model`.
        dtype: one of `DTYPES`.
    """
    llm = {id(p) for part in (model.model.language_model, model.lm_head) for p in part.parameters()}
    size = value_bytes(dtype)
    total: int = sum(p.numel() * size for p in model.parameters() if id(p) not in llm)
    return total + _buffer_bytes(model)


def _buffer_bytes(model: Any) -> int:
    return sum(int(buffer.numel() * buffer.element_size()) for buffer in model.buffers())


def _packed(numel: int) -> int:
    return -(-numel // 2) + 4 * -(-numel // NF4_BLOCK)


def kv_bytes(config: Any, dtype: str, length: int, batch: int = 1) -> int:
    """Bytes of the KV cache: layers x 2 x kv_heads x head_dim x bytes x length x batch.

    Args:
        config: of the whole model.
        dtype: one of `DTYPES`.
        length: cached tokens of a row: text, kept visual tokens, new tokens.
        batch: rows.
    """
    llm = LLM.of(config)
    return llm.layers * 2 * llm.kv_heads * llm.head_dim * value_bytes(dtype) * length * batch


def encode_bytes(config: Any, dtype: str, partitions: int) -> int:
    """Activations at the encoder's peak, all partitions at once: in the MLP of a layer, n tokens of all partitions.

    Four tensors of n x hidden live there (embeddings, the layer's input, the residual, the normed residual) and three
    of n x intermediate (QuickGELU takes its input, a temporary and its output); and the pixels, as the processor makes
    them and in the model's dtype.
    """
    tower, size = Tower.of(config), value_bytes(dtype)
    inner = (3 if config.vision_config.hidden_act == "quick_gelu" else 2) * tower.intermediate
    pixels = partitions * tower.cells * tower.patch * (4 + size)
    return partitions * tower.sequence * (4 * tower.hidden + inner) * size + pixels


def prefill_bytes(config: Any, dtype: str, length: int, visual: int, batch: int = 1) -> int:
    """Activations at the LLM's peak in prefill, without the KV cache: in the MLP of its last layer.

    Four tensors of length x hidden live there (embeddings, the layer's input, the residual, the normed residual) and
    three of length x intermediate (activated gate, up, their product); and the visual features, twice: as they were
    handed over, and joined. Logits are of the last token only. In int4 the matrix in use stands unpacked beside them.

    Args:
        config: of the whole model.
        dtype: one of `DTYPES`.
        length: prompt tokens of a row, text and visual.
        visual: visual tokens among them.
        batch: rows.
    """
    llm, size = LLM.of(config), value_bytes(dtype)
    logits = llm.vocabulary * (size + 4)
    unpacked = llm.hidden * llm.intermediate * size if dtype == "int4" else 0
    states = length * (4 * llm.hidden + 3 * llm.intermediate) + 2 * visual * llm.hidden
    return unpacked + batch * (states * size + logits)


def layer_bytes(config: Any, dtype: str, gguf: str | None = None) -> float:
    """Bytes of the matrices of one of the LLM's layers, on average: what a step of decoding reads of it.

    Args:
        config: of the whole model.
        dtype: one of `DTYPES`.
        gguf: one of `hired.costs.quants.TYPES`; in place of `dtype` where it is not None.
    """
    llm = LLM.of(config)
    if gguf is not None:
        return sum(each.bytes for each in quants.stored(config, gguf) if each.name.startswith("blk.")) / llm.layers
    return _packed(llm.layer_weights) if dtype == "int4" else llm.layer_weights * value_bytes(dtype)


def head_bytes(config: Any, dtype: str, gguf: str | None = None) -> int:
    """Bytes of the LM head, or of the embeddings where these are its weights; arguments as in `layer_bytes`."""
    llm = LLM.of(config)
    if gguf is None:
        return llm.vocabulary * llm.hidden * value_bytes(dtype)
    tables = {each.name: each.bytes for each in quants.stored(config, gguf) if "blk." not in each.name}
    return tables.get("output.weight", tables["token_embd.weight"])


def context_bytes(config: Any, length: int) -> int:
    """Bytes of llama.cpp's KV cache, float16, for `length` tokens: it is made for a multiple of `CONTEXT_STEP`."""
    return kv_bytes(config, "float16", -(-length // CONTEXT_STEP) * CONTEXT_STEP)


def graph_bytes(config: Any, dtype: str, length: int, visual: int) -> int:
    """What llama.cpp computes in, at its peak in prefill, without the KV cache; and what it is given.

    The prompt goes through in pieces of `PIECE` tokens, in float32: four tensors of n x hidden, three of n x
    intermediate, one piece quantised to 8 bits as the product with quantised weights wants it, the mask, and the last
    token's logits. Beside it lie the visual features, in PyTorch's dtype and once more in float32.

    Args:
        config: of the whole model.
        dtype: of encoder and projector.
        length: tokens of the prompt.
        visual: visual tokens among them.
    """
    llm, piece = LLM.of(config), min(length, PIECE)
    states = piece * (4 * llm.hidden + 3 * llm.intermediate) * 4 + piece * llm.intermediate * 34 // 32
    return states + piece * length * 4 + llm.vocabulary * 4 + visual * llm.hidden * (value_bytes(dtype) + 4)
