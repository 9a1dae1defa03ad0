"""What a GGUF file says of itself, read and checked before llama.cpp sees the file.

llama.cpp ends the process over some broken files, and `gguf.GGUFReader` trusts every length in them and makes objects
of every token's text, so neither reads a file of unknown origin here. Nothing is mapped and no weight is read.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from hired.errors import MissingDependencyError, ModelLoadError
from hired.files import one_line
from hired.gguf.llama import MISSING

__all__ = ["Header", "Tensor", "read_header"]

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_SCALARS = ("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?", "", "", "<Q", "<q", "<d")  # by their number in a file
_STRING, _ARRAY = 8, 9
_MOST_KEYS, _MOST_TENSORS, _MOST_VALUES, _MOST_BYTES = 1 << 16, 1 << 16, 1 << 21, 1 << 27
_LONGEST_NAME, _MOST_AXES = 63, 4
_UNREAD = ("tokenizer.ggml.merges", "tokenizer.ggml.scores", "tokenizer.chat_template")


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        shape: values along each axis, the one whose values stand side by side first.
        type: number of the type of its values.
        start, bytes: where it stands, from the beginning of all tensors.
    """

    shape: tuple[int, ...]
    type: int
    start: int
    bytes: int


@dataclass(frozen=True)
class Header:
    """What stands in front of the weights.

    Attributes:
        path: the file.
        metadata: its keys and values; of those that nobody here needs, the values are left out.
        tensors: its tensors by their names.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def name(self) -> str:
        """The file, for messages."""
        return one_line(self.path)

    @property
    def architecture(self) -> str:
        """What llama.cpp calls the model's architecture; empty where the file names none."""
        found = self.metadata.get("general.architecture")
        return found if isinstance(found, str) else ""

    @cached_property
    def tokens(self) -> list[str] | None:
        """The text of every token, None in a file without a vocabulary."""
        found = self.metadata.get("tokenizer.ggml.tokens")
        return found if self.metadata.get("tokenizer.ggml.model", "none") != "none" and found else None

    @property
    def end_tokens(self) -> list[int]:
        """Ids that end an answer, as far as the file names them."""
        names = ("eos_token_id", "eot_token_id", "eom_token_id")
        found = (self.metadata.get(f"tokenizer.ggml.{name}") for name in names)
        return sorted({each for each in found if isinstance(each, int)})

    def number(self, key: str) -> float | int | None:
        """A number under the architecture's name; the one that all layers share where there is one for each.

        None where it is not there.

        Raises:
            ModelLoadError: It is no number, or layers differ.
        """
        found = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(found, list) and found and len({*found}) == 1:
            found = found[0]
        if found is None or (isinstance(found, int | float) and math.isfinite(found)):
            return found
        raise ModelLoadError(f"{self.name}: {self.architecture}.{key} is {found!r:.60}, which no model here has")


def read_header(path: Path) -> Header:
    """The header of a GGUF file that holds a whole model.

    Raises:
        ModelLoadError: It is not there, no GGUF file, cut off, one part of several, without weights or of another
            version.
        MissingDependencyError: The extra `gguf` is not installed.
    """
    try:
        if path.is_dir():
            raise ModelLoadError(f"{one_line(path)} is a directory: name the .gguf file")
        with path.open("rb", buffering=1 << 20) as file:
            return _Reader(path, file, os.fstat(file.fileno()).st_size).header()
    except (OSError, ValueError) as error:
        if isinstance(error, ModelLoadError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ModelLoadError(f"cannot read {one_line(path)}: {reason}") from error


class _Reader:
    """Reads a file from its beginning; every length is compared with what is left of the file first."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path, self._file, self._size, self._at = path, file, size, 0

    def header(self) -> Header:
        if not self._size:
            self._fail("it is empty")
        if self._size < len(_MAGIC) or self._take(len(_MAGIC)) != _MAGIC:
            self._fail("it is no GGUF file")
        version = self._number("<I")
        if version not in _VERSIONS:
            turned = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
            kind = "of a machine with the other byte order" if turned else f"version {version} of the format"
            self._fail(f"it is {kind}, known are versions 2 and 3: convert the model again")
        count, keys = self._number("<Q"), self._number("<Q")
        if keys > _MOST_KEYS or count > _MOST_TENSORS:
            self._fail(f"it tells of {keys:,} keys and {count:,} tensors, more than any model has: it is damaged")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string()
            if not key or key in metadata:
                self._fail(f"the key {key!r:.40} is empty or there twice: it is damaged")
            metadata[key] = self._value(self._number("<I"), key not in _UNREAD)
        self._whole(metadata, count)
        # Offsets count from the first multiple of the alignment behind the header.
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
            self._fail(f"general.alignment is {alignment!r:.40}, which is no power of 2: it is damaged")
        tensors: dict[str, Tensor] = {}
        for _ in range(count):
            name = self._string()
            if not name or name in tensors or len(name.encode()) > _LONGEST_NAME:
                self._fail(f"the tensor name {name!r:.40} is empty, too long or there twice: it is damaged")
            tensors[name] = self._tensor(name, alignment)
        data = -(-self._at // alignment) * alignment
        end = data + max(tensor.start + tensor.bytes for tensor in tensors.values())
        if end > self._size:
            self._fail(f"it is cut off: {self._size:,} of {end:,} bytes are there, download it again")
        return Header(self._path, metadata, tensors)

    def _whole(self, metadata: Mapping[str, Any], count: int) -> None:
        """Refuses what is no whole model."""
        parts = metadata.get("split.count", 0)
        if isinstance(parts, int) and parts > 1:
            self._fail(f"it is one of {parts} parts: join them with llama.cpp's `llama-gguf-split --merge`")
        if metadata.get("general.type", "model") != "model":
            self._fail(f"it holds no language model but {metadata['general.type']!r:.40}: name the model's own file")
        if not isinstance(metadata.get("general.architecture"), str):
            self._fail("it names no architecture (general.architecture): it is damaged")
        if not count:
            self._fail("it holds a vocabulary and no weights: name the model's own file")

    def _tensor(self, name: str, alignment: int) -> Tensor:
        axes = self._number("<I")
        if not 1 <= axes <= _MOST_AXES:
            self._fail(f"the tensor {name!r} has {axes} axes: it is damaged")
        shape = tuple(self._number("<Q") for _ in range(axes))
        kind, start = self._number("<I"), self._number("<Q")
        sizes = _type_sizes()
        if kind not in sizes:
            self._fail(f"the tensor {name!r} has type {kind}, which is not known: is the file newer than llama.cpp?")
        block, size = sizes[kind]
        values = math.prod(shape)
        if not 0 < values < 1 << 50 or shape[0] % block or start % alignment or start >= 1 << 50:
            self._fail(f"the tensor {name!r} of {' x '.join(map(str, shape))} cannot be as it says: it is damaged")
        return Tensor(shape, kind, start, values // block * size)

    def _value(self, kind: int, wanted: bool, inside: bool = False) -> Any:
        if kind == _STRING:
            return self._string() if wanted else self._skip(self._length())
        if kind == _ARRAY and not inside:
            of, count = self._number("<I"), self._number("<Q")
            if count > _MOST_VALUES:
                self._fail(f"it holds a list of {count:,} values, more than any model has: it is damaged")
            if of in (_STRING, _ARRAY):
                return [self._value(of, wanted, inside=True) for _ in range(count)]
            form = self._form(of)
            data = self._take(count * struct.calcsize(form))
            return list(struct.unpack(f"<{count}{form[1]}", data)) if wanted else None
        return self._number(self._form(kind))

    def _form(self, kind: int) -> str:
        form = _SCALARS[kind] if kind < len(_SCALARS) else ""
        if not form:
            self._fail(f"it holds a value of type {kind}, which there is not: it is damaged")
        return form

    def _string(self) -> str:
        return self._take(self._length()).decode("utf-8", "replace")

    def _length(self) -> int:
        return int(self._number("<Q"))

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _skip(self, count: int) -> None:
        self._take(count)

    def _take(self, count: int) -> bytes:
        if count > self._size - self._at:
            self._fail("it is cut off inside of its header: download it again")
        self._at += count
        if self._at > _MOST_BYTES:
            self._fail(f"its header is of more than {_MOST_BYTES >> 20} MB, which no model's is: it is damaged")
        found = self._file.read(count)
        if len(found) < count:
            self._fail("it became shorter while it was read")
        return found

    def _fail(self, why: str) -> NoReturn:
        raise ModelLoadError(f"cannot use {one_line(self._path)}: {why}")


def _type_sizes() -> Mapping[int, tuple[int, int]]:
    """(values of a block, its bytes) by the number of a type."""
    try:
        from gguf import GGML_QUANT_SIZES
    except ImportError as error:
        raise MissingDependencyError(MISSING) from error
    return {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}
