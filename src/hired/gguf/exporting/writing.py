"""Writes a GGUF file tensor by tensor, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hired import files
from hired.errors import HiredError
from hired.gguf.architectures import TextFacts
from hired.gguf.exporting.header import write_header
from hired.gguf.exporting.tensors import Entry, entries, stored, values
from hired.gguf.exporting.types import Type
from hired.gguf.exporting.vocabulary import Vocabulary

__all__ = ["Job", "Progress", "check_path", "write"]

Progress = Callable[[str, int, int], None]
"""Told what is done ("writing", "quantizing"), and how many bytes of how many are."""

_MARGIN = 16 * 2**20
"""Bytes left for the header with its vocabulary."""


@dataclass(frozen=True)
class Job:
    """What is written.

    Attributes:
        facts, config: the language model, and the configuration it was read from.
        weights: where tensors come from, such as `hired.gguf.exporting.weights.InMemory`.
        vocabulary: what the file says of the tokenizer.
        type: of the weights.
        name: `general.name`, None for none.
        progress: told of every tensor.
    """

    facts: TextFacts
    config: Any
    weights: Any
    vocabulary: Vocabulary
    type: Type
    name: str | None = None
    progress: Progress | None = None


def check_path(path: Path, overwrite: bool) -> None:
    """Refuses a path that cannot be written, before anything is read.

    Raises:
        HiredError: it is there already and is not to be written over, or cannot be written.
    """
    if path.suffix.lower() != ".gguf":
        raise HiredError(f"cannot write {files.one_line(path)}: name a .gguf file")
    if path.exists() and not path.is_file():
        raise HiredError(f"cannot write {files.one_line(path)}: it is no ordinary file")
    if path.exists() and not overwrite:
        raise HiredError(f"{files.one_line(path)} is there already: name another file, or add --force to replace it")
    files.check_writable(path)


def write(job: Job, path: Path) -> int:
    """Writes the file.

    Returns:
        Its size in bytes.

    Raises:
        HiredError: it cannot be written, or the disk has no room for it; nothing is left behind then.
        UnsupportedModelError: weights that the architecture or the type does not hold.
        MissingDependencyError: a type that needs llama.cpp, which is not installed.
    """
    plain = job.type.name if job.type.plain else job.weights.stored
    planned = entries(job.facts, job.weights.shapes, plain)
    size = sum(entry.size for entry in planned)
    final = 0 if job.type.plain else int(job.type.bits / 8 * sum(math.prod(entry.shape) for entry in planned))
    _check_room(path, size + final + _MARGIN)
    if job.type.plain:
        with files.whole(path) as beside:
            _write_plain(job, planned, beside, job.type.code)
        return path.stat().st_size
    from hired.gguf.llama import quantize

    with files.whole(path) as beside, files.scratch(path) as between:
        _write_plain(job, planned, between, {"f32": 0, "f16": 1, "bf16": 32}[plain])
        _apart(lambda: quantize(between, beside, job.type.code), job, beside, final)
    return path.stat().st_size


def _check_room(path: Path, needed: int) -> None:
    with files.told(path):
        free = shutil.disk_usage(path.resolve().parent).free
    if free < needed:
        raise HiredError(
            f"cannot write {files.one_line(path)}: it needs {needed / 1e9:.1f} GB on the way, and the disk has"
            f" {free / 1e9:.1f} GB left"
        )


def _write_plain(job: Job, planned: list[Entry], path: Path, code: int) -> None:
    """Writes a file of the types in `planned`; one tensor is in memory at a time."""
    with _writer(path, job.facts.architecture) as writer:
        write_header(writer, job.facts, job.name)
        writer.add_quantization_version(2)
        writer.add_file_type(code)
        job.vocabulary.write(writer)
        for entry in planned:
            _declare(writer, entry)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        done, total = 0, sum(entry.size for entry in planned)
        for entry in planned:
            data = stored(values(job.facts, job.config, entry, job.weights), entry.dtype)
            try:
                writer.write_tensor_data(data)
            except OSError as error:  # numpy's, which does not say why
                raise OSError(error.errno or errno.ENOSPC, error.strerror or "the disk is full") from error
            done += entry.size
            if job.progress is not None:
                job.progress("writing", done, total)


@contextlib.contextmanager
def _writer(path: Path, architecture: str) -> Iterator[Any]:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    try:
        yield writer
        writer.flush()
    finally:
        with contextlib.suppress(OSError):  # a full disk has told so already
            writer.close()


def _declare(writer: Any, entry: Entry) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType, quant_shape_to_byte_shape

    kind = GGMLQuantizationType[entry.dtype.upper()]
    if entry.dtype == "q8_0":
        shape = quant_shape_to_byte_shape(entry.shape, kind)
        writer.add_tensor_info(entry.name, shape, np.dtype(np.uint8), entry.size, raw_dtype=kind)
    else:
        writer.add_tensor_info(entry.name, entry.shape, np.dtype(np.float32), entry.size, raw_dtype=kind)


def _apart(work: Callable[[], None], job: Job, path: Path, total: int) -> None:
    """Runs what does not come back before it is done in a thread, so that an interruption need not wait for it.

    How far it is shows in the size of the file that it writes.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # for the thread that waits
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while True:
        if job.progress is not None:
            job.progress("quantizing", min(path.stat().st_size, total), total)
        if not thread.is_alive():
            break
        thread.join(0.2)
    if raised:
        raise raised[0]
