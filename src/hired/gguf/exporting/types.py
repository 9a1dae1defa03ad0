"""Types of weights, by the names that llama.cpp's users know."""

from __future__ import annotations

from dataclasses import dataclass

from hired.errors import ModelLoadError

__all__ = ["TYPES", "Type", "type_named"]


@dataclass(frozen=True)
class Type:
    """A type of weights.

    Attributes:
        name: as it is asked for.
        code: `general.file_type` of the file, an entry of llama.cpp's `llama_ftype`.
        bits: of a weight in matrices, blocks' scales included; of the type that most of them have.
        plain: it is written here; the others llama.cpp makes from a file of plain ones.
    """

    name: str
    code: int
    bits: float
    plain: bool = False


TYPES: dict[str, Type] = {
    each.name: each
    for each in (
        Type("f32", 0, 32, plain=True),
        Type("f16", 1, 16, plain=True),
        Type("bf16", 32, 16, plain=True),
        Type("q8_0", 7, 8.5, plain=True),
        Type("q6_k", 18, 6.5625),
        Type("q5_k_m", 17, 5.7),
        Type("q5_k_s", 16, 5.5),
        Type("q5_1", 9, 6),
        Type("q5_0", 8, 5.5),
        Type("q4_k_m", 15, 4.9),
        Type("q4_k_s", 14, 4.6),
        Type("q4_1", 3, 5),
        Type("q4_0", 2, 4.5),
        Type("q3_k_m", 12, 3.9),
        Type("q2_k", 10, 3.2),
    )
}
"""The types, from the largest."""


def type_named(name: str) -> Type:
    """The type of a name, in capitals or not.

    Raises:
        ModelLoadError: no such type.
    """
    found = TYPES.get(name.strip().lower().replace("-", "_"))
    if found is None:
        raise ModelLoadError(f"unknown type {name!r} of weights: use one of {', '.join(TYPES)}")
    return found
