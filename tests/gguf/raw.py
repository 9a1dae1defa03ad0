"""GGUF files byte by byte, so that each part can be wrong."""

import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from gguf import GGUFReader, GGUFValueType

FORMS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


@dataclass(frozen=True)
class Raw:
    """A file's parts. `metadata` has (type, value), for lists ((of what), values); `tensors` (shape, type, data)."""

    metadata: dict[str, tuple[Any, Any]]
    tensors: dict[str, tuple[tuple[int, ...], int, bytes]]
    magic: bytes = b"GGUF"
    version: int = 3
    keys: int | None = None
    count: int | None = None
    starts: dict[str, int] = field(default_factory=dict)
    twice: tuple[str, ...] = ()

    def told(self, key: str, value: Any, kind: Any = None) -> Self:
        """With another value, or without the key for None."""
        metadata = {name: entry for name, entry in self.metadata.items() if name != key}
        if value is not None:
            metadata[key] = (self.metadata[key][0] if kind is None else kind, value)
        return replace(self, metadata=metadata)

    def held(self, name: str, tensor: Any) -> Self:
        """With another tensor, or without it for None."""
        tensors = {key: value for key, value in self.tensors.items() if key != name or tensor is not None}
        return replace(self, tensors=tensors if tensor is None else {**tensors, name: tensor})

    @property
    def header(self) -> bytes:
        keys = [*self.metadata, *(name for name in self.twice if name in self.metadata)]
        names = [*self.tensors, *(name for name in self.twice if name in self.tensors)]
        parts = [self.magic, struct.pack("<I", self.version)]
        parts.append(struct.pack("<Q", len(names) if self.count is None else self.count))
        parts.append(struct.pack("<Q", len(keys) if self.keys is None else self.keys))
        for key in keys:
            parts += [string(key), _value(*self.metadata[key])]
        start = 0
        for name in names:
            shape, kind, data = self.tensors[name]
            parts += [string(name), struct.pack(f"<I{len(shape)}Q", len(shape), *shape), struct.pack("<I", kind)]
            parts.append(struct.pack("<Q", self.starts.get(name, start)))
            start += -(-len(data) // 32) * 32
        return b"".join(parts)

    @property
    def bytes(self) -> bytes:
        header = self.header
        data = b"".join(each[2].ljust(-(-len(each[2]) // 32) * 32, b"\0") for each in self.tensors.values())
        return header.ljust(-(-len(header) // 32) * 32, b"\0") + data


def _value(kind: Any, value: Any) -> bytes:
    if isinstance(kind, tuple):
        count = len(value) if len(kind) == 1 else kind[1]
        items = b"".join(string(item) if kind[0] == STRING else struct.pack(FORMS[kind[0]], item) for item in value)
        return struct.pack("<IIQ", ARRAY, kind[0], count) + items
    if isinstance(value, bytes):  # whatever a test wants there
        return struct.pack("<I", kind) + value
    return struct.pack("<I", kind) + (string(value) if kind == STRING else struct.pack(FORMS[kind], value))


def read(path: Path) -> Raw:
    """The parts of a good file."""
    reader = GGUFReader(path)
    metadata = {}
    for name, entry in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        first, *of = (int(kind) for kind in entry.types)
        metadata[name] = ((of[0],) if first == GGUFValueType.ARRAY else first, entry.contents())
    tensors = {
        tensor.name: (
            tuple(int(size) for size in tensor.shape),
            int(tensor.tensor_type),
            np.ascontiguousarray(tensor.data).tobytes(),
        )
        for tensor in reader.tensors
    }
    return Raw(metadata, tensors)
