"""GGUF files of exact architectures with random quantised weights: what they cost is what the real ones cost.

Nothing is quantised: blocks are drawn as they are stored, with scales that give weights the standard deviation that
`hired.costs.randomly` has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hired.costs.quants import BLOCKS, Stored, stored
from hired.costs.randomly import STANDARD_DEVIATION
from hired.errors import MissingDependencyError

__all__ = ["POOL", "blocks", "write_random"]

POOL = 65_537
"""Blocks drawn of a type; tensors repeat them. A prime, so that no two rows of a matrix are alike."""

Bytes = NDArray[np.uint8]

HALVES: dict[str, tuple[tuple[int, float], ...]] = {
    "Q4_0": ((0, 1 / 4.6),),
    "Q4_1": ((0, 1 / 4.6), (2, -7.5 / 4.6)),
    "Q5_0": ((0, 1 / 9.2),),
    "Q5_1": ((0, 1 / 9.2), (2, -15.5 / 9.2)),
    "Q8_0": ((0, 1 / 74),),
    "Q2_K": ((80, 1 / 13), (82, 1.5 / 13)),
    "Q3_K": ((108, 1 / 42),),
    "Q4_K": ((0, 1 / 238), (2, 7.5 / 238)),
    "Q5_K": ((0, 1 / 480), (2, 15.5 / 480)),
    "Q6_K": ((208, 1 / 1370),),
}
"""Where float16 numbers stand in a block, and what they are for weights of deviation 1; every other byte may be any."""


def write_random(config: Any, type: str, path: Path, name: str | None = None) -> None:
    """Writes the LLM of a model as a GGUF file without vocabulary, its weights random.

    Args:
        config: of the whole model.
        type: a name in `hired.costs.quants.TYPES`.
        path: the file; nothing of the tensors' size is held in memory but one of them.
        name: of the model, for the file's header.

    Raises:
        MissingDependencyError: gguf is not installed.
        UnsupportedModelError: an LLM that llama.cpp does not run as transformers does.
    """
    from hired.gguf.architectures import facts_of
    from hired.gguf.exporting.header import write_header
    from hired.gguf.exporting.types import type_named
    from hired.gguf.llama import MISSING

    try:
        import gguf
    except ImportError as error:
        raise MissingDependencyError(MISSING) from error
    facts, tensors = facts_of(config), list(stored(config, type))
    writer = gguf.GGUFWriter(path, facts.architecture)
    try:
        write_header(writer, facts, name)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_file_type(type_named(type).code)
        writer.add_tokenizer_model("none")
        for each in tensors:
            kind = gguf.GGMLQuantizationType[each.type]
            writer.add_tensor_info(each.name, each.shape, np.dtype(np.float32), each.bytes, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        generator = np.random.default_rng(0)
        pools = {kind: blocks(kind, generator) for kind in dict.fromkeys(each.type for each in tensors)}
        for each in tensors:
            writer.write_tensor_data(_filled(each, pools[each.type]))
    finally:
        writer.close()


def blocks(type: str, generator: np.random.Generator) -> Bytes:
    """(POOL, bytes of a block) random blocks of finite weights.

    Args:
        type: a name in `hired.costs.quants.BLOCKS`.
        generator: draws them.
    """
    weights, size = BLOCKS[type]
    if weights == 1:
        numbers = generator.normal(0, STANDARD_DEVIATION, POOL).astype(np.float16 if type == "F16" else np.float32)
        return numbers.view(np.uint8).reshape(POOL, -1)[:, -size:]  # bfloat16 is the upper half of float32
    drawn = generator.integers(0, 256, (POOL, size), dtype=np.uint8)
    for place, scale in HALVES[type]:
        drawn[:, place : place + 2] = np.array([STANDARD_DEVIATION * scale], np.float16).view(np.uint8)
    return drawn


def _filled(tensor: Stored, pool: Bytes) -> Bytes:
    """(bytes,) of a tensor: norms are 1, biases 0, the rest repeats the pool."""
    if len(tensor.shape) == 1:
        return np.full(tensor.shape, 0.0 if tensor.name.endswith("bias") else 1.0, np.float32).view(np.uint8)
    return np.resize(pool, tensor.bytes)
