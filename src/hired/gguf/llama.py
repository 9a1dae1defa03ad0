"""llama.cpp, by way of `llama_cpp`: the only file that imports it.

What is passed to C is checked before: an assertion in there ends the whole process. Parameters are the library's own
defaults with few fields changed, under whichever name the installed version has them.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hired.errors import HiredError, MissingDependencyError, ModelLoadError
from hired.files import one_line

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MISSING", "Context", "Model", "Sampler", "library", "quantize", "tokens"]

MISSING = "GGUF files need llama.cpp: pip install llama-cpp-python gguf, or install hired-vlm with its gguf extra"
"""What to say where llama.cpp is not installed."""

MOST_AT_ONCE = 512
"""Tokens that are computed together; buffers for intermediate results grow with it."""

_ERROR, _CONTINUED = 4, 5  # levels of llama.cpp's log
_IMROPE, _MROPE = 40, 8  # kinds of rotary positions with several axes


def library() -> Any:
    """`llama_cpp`.

    Raises:
        MissingDependencyError: It is not installed, or cannot be loaded here.
    """
    try:
        import llama_cpp
    except ImportError as error:
        raise MissingDependencyError(MISSING) from error
    except (OSError, RuntimeError) as error:  # its shared library does not load on this machine
        reason = " ".join(str(error).split())
        raise MissingDependencyError(f"llama.cpp is installed but cannot be loaded: {reason:.200}") from error
    return llama_cpp


class _Log:
    """Keeps llama.cpp's log off the screen while calls of ours run, and what it said first of an error.

    The log has one listener a process: the one that was there listens again when no call of ours runs.
    """

    def __init__(self) -> None:
        # Whatever is collected as garbage while it is held is freed with a call of its own.
        self._lock = threading.RLock()
        self._running = 0
        self._listener: Any = None
        self._before: Any = None
        self._lines: list[str] = []
        self._continues = False

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Listens inside."""
        lib = library()
        with self._lock:
            if self._listener is None:
                self._listener = lib.llama_log_callback(self._hear)
            self._running += 1
            if self._running == 1:
                self._lines.clear()
                self._before = (lib.llama_log_callback(), ctypes.c_void_p())
                lib.llama_log_get(ctypes.byref(self._before[0]), ctypes.byref(self._before[1]))
                lib.llama_log_set(self._listener, ctypes.c_void_p())
        try:
            yield
        finally:
            with self._lock:
                if self._running == 1:
                    lib.llama_log_set(*self._before)
                self._running -= 1

    def said(self) -> str:
        """The first error of the calls that run, which is nearest to its cause; those that follow say it failed."""
        line = next((line for line in map(_plain, self._lines) if line), "it does not say why")
        self._lines.clear()
        return line

    def _hear(self, level: int, text: bytes | None, _: Any) -> None:
        words = (text or b"").decode("utf-8", "replace")
        if level == _CONTINUED:
            if self._continues and self._lines:
                self._lines[-1] += words
            return
        self._continues = level == _ERROR
        if self._continues and len(self._lines) < 64:
            self._lines.append(words)


def _plain(line: str) -> str:
    """A line of the log without the name of the C function in front, on one line."""
    words = " ".join("".join(c if c.isprintable() else " " for c in line).split())
    name, found, rest = words.partition(": ")
    return (rest if found and " " not in name else words)[:300]


_LOG = _Log()


def _freed(free: Callable[[Any], None], pointer: Any) -> None:
    """Gives back what C holds, which it logs."""
    with _LOG.quiet():
        free(pointer)


def _set(parameters: Any, **names: Any) -> None:
    """Sets a field by the first of its names that this version has: `a__b=value` is `a`, or else `b`.

    Raises:
        MissingDependencyError: It has none of them.
    """
    for either, value in names.items():
        known = next((name for name in either.split("__") if hasattr(parameters, name)), None)
        if known is None:
            raise MissingDependencyError(
                f"this version of llama-cpp-python has no {either.split('__')[0]}: install the one that hired-vlm's"
                " gguf extra names"
            )
        setattr(parameters, known, value)


class Model:
    """The weights of a GGUF file, in memory.

    Args:
        path: The file, which `hired.gguf.header` has checked.
        exact: For tests: no repacked weights.

    Raises:
        ModelLoadError: llama.cpp does not take it.
        MissingDependencyError: llama.cpp is not installed.
    """

    def __init__(self, path: Path, *, exact: bool = False) -> None:
        lib = library()
        parameters = lib.llama_model_default_params()
        # Mapped weights that are repacked for the processor are in memory twice. 0 and False: neither.
        _set(parameters, load_mode__use_mmap=0)
        if exact:
            _set(parameters, use_extra_bufts=False)
        with _LOG.quiet():
            lib.llama_backend_init()  # once is enough, twice does no harm
            pointer = lib.llama_model_load_from_file(os.fsencode(path), parameters)
            if not pointer:
                raise ModelLoadError(f"llama.cpp cannot load {one_line(path)}: {_LOG.said()}")
        self._lib, self._pointer = lib, pointer
        self.close = weakref.finalize(self, _freed, lib.llama_model_free, pointer)
        self.exact = exact
        self.width = int(lib.llama_model_n_embd_inp(pointer))
        """Values of an embedding as the model takes it; with DeepStack, those of several layers side by side."""
        self.positions = int(lib.llama_model_n_ctx_train(pointer))
        """Positions that the model was made for."""
        self.axes = 4 if lib.llama_model_rope_type(pointer) in (_MROPE, _IMROPE) else 1
        """Positions of an embedding: 4 for M-RoPE (time, row, column, unused), else 1."""
        self._vocabulary = lib.llama_model_get_vocab(pointer)
        self.ids = int(lib.llama_vocab_n_tokens(self._vocabulary))
        """Ids of tokens."""

    @property
    def pointer(self) -> Any:
        """What C knows it by.

        Raises:
            HiredError: It is closed.
        """
        if not self.close.alive:
            raise HiredError("this GGUF file was closed: make a new hired.gguf.LLM")
        return self._pointer

    def piece(self, token: int) -> bytes:
        """The bytes of a token's text by the file's vocabulary, which has one; none for special tokens."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = int(self._lib.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, False))
            if count >= 0:
                return buffer.raw[:count]
            size = -count


class Context:
    """A key-value cache of one sequence, and the buffers to compute with.

    Args:
        model: The weights, kept alive.
        size: Tokens that it holds, at least 1; llama.cpp rounds up.
        threads: Of the computation.

    Raises:
        HiredError: There is not enough memory.
    """

    def __init__(self, model: Model, size: int, threads: int) -> None:
        lib = library()
        parameters = lib.llama_context_default_params()
        at_once = min(MOST_AT_ONCE, size)
        # Logits of one token at a time: a buffer for those of all is hundreds of megabytes with large vocabularies.
        _set(parameters, n_ctx=size, n_batch=at_once, n_ubatch=at_once, n_outputs_max=1)
        _set(parameters, n_threads=threads, n_threads_batch=threads)
        if model.exact:
            _set(parameters, flash_attn_type=lib.LLAMA_FLASH_ATTN_TYPE_DISABLED)
            _set(parameters, type_k=lib.GGML_TYPE_F32, type_v=lib.GGML_TYPE_F32)
        with _LOG.quiet():
            pointer = lib.llama_init_from_model(model.pointer, parameters)
            if not pointer:
                raise HiredError(f"llama.cpp cannot make a cache for {size:,} tokens: {_LOG.said()}")
        self._lib, self.pointer, self._model = lib, pointer, model
        self.close = weakref.finalize(self, _freed, lib.llama_free, pointer)
        self.size = int(lib.llama_n_ctx(pointer))
        self._at_once = int(lib.llama_n_batch(pointer))
        self._memory = lib.llama_get_memory(pointer)

    def clear(self) -> None:
        """Forgets all tokens."""
        self._lib.llama_memory_clear(self._memory, True)

    def feed_ids(self, ids: np.ndarray, positions: np.ndarray, logits: bool) -> None:
        """Computes text.

        Args:
            ids: (n,) int32, inside the vocabulary.
            positions: (n,) int32.
            logits: Whether those of the last token are wanted.

        Raises:
            HiredError: llama.cpp fails.
        """
        for start in range(0, len(ids), self._at_once):
            some = slice(start, start + self._at_once)
            self._feed(ids[some], None, positions[some], logits and some.stop >= len(ids))

    def feed_rows(self, rows: np.ndarray, positions: np.ndarray, logits: bool, mutual: bool = False) -> None:
        """Computes embeddings.

        Args:
            rows: (n, width) float32, contiguous.
            positions: (axes, n) int32.
            logits: Whether those of the last one are wanted.
            mutual: They all see each other, and not those behind them alone; then they must fit at once.

        Raises:
            HiredError: llama.cpp fails.
        """
        if mutual:
            if len(rows) > self._at_once:
                raise HiredError(f"{len(rows):,} visual tokens see each other and {self._at_once:,} fit at once")
            self._see(mutual)
        try:
            for start in range(0, len(rows), self._at_once):
                some = slice(start, start + self._at_once)
                self._feed(None, rows[some], positions[:, some], logits and some.stop >= len(rows))
        finally:
            if mutual:
                self._see(False)

    def _see(self, mutual: bool) -> None:
        with _LOG.quiet():
            self._lib.llama_set_causal_attn(self.pointer, not mutual)

    def logits(self) -> np.ndarray:
        """(vocabulary,) float32 of the last token fed; a view that the next call changes."""
        import numpy as np

        pointer = self._lib.llama_get_logits_ith(self.pointer, -1)
        return np.ctypeslib.as_array(pointer, shape=(self._model.ids,))

    def state(self) -> np.ndarray:
        """The cache, as `restore` takes it."""
        import numpy as np

        size = int(self._lib.llama_state_seq_get_size(self.pointer, 0))
        found = np.empty(size, np.uint8)
        buffer = found.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if self._lib.llama_state_seq_get_data(self.pointer, buffer, size, 0) != size:
            raise HiredError("llama.cpp does not hand over its cache")
        return found

    def restore(self, state: np.ndarray) -> None:
        """Takes over the cache of another context of this model."""
        buffer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if not self._lib.llama_state_seq_set_data(self.pointer, buffer, len(state), 0):
            raise HiredError("llama.cpp does not take over its cache")

    def _feed(self, ids: np.ndarray | None, rows: np.ndarray | None, positions: np.ndarray, logits: bool) -> None:
        import numpy as np

        count = positions.shape[-1]
        positions = np.ascontiguousarray(positions)
        outputs = np.zeros(count, np.int8)
        outputs[-1] = logits
        batch = self._lib.llama_batch(n_tokens=count)  # all of the one sequence that there is by default
        batch.pos = positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.logits = outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        if ids is not None:
            batch.token = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        if rows is not None:
            batch.embd = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        with _LOG.quiet():
            if self._lib.llama_decode(self.pointer, batch):
                raise HiredError(f"llama.cpp cannot compute these {count:,} tokens: {_LOG.said()}")


class Sampler:
    """Chooses tokens: the best one, or by chance.

    Args:
        temperature: 0 for the best one; else what logits are divided by.
        top_p: Choose among the most probable tokens that make up this share.
        seed: Of the choices, below 2^32 - 1; None for another one each time.
    """

    def __init__(self, temperature: float, top_p: float, seed: int | None) -> None:
        lib = library()
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        self._lib, self._chain = lib, chain
        self.close = weakref.finalize(self, _freed, lib.llama_sampler_free, chain)
        if temperature == 0:
            steps = [lib.llama_sampler_init_greedy()]
        else:
            unseeded = 0xFFFFFFFF  # llama.cpp draws one
            steps = [lib.llama_sampler_init_temp(temperature), lib.llama_sampler_init_top_p(top_p, 1)]
            steps.append(lib.llama_sampler_init_dist(unseeded if seed is None else seed))
        for step in steps:
            lib.llama_sampler_chain_add(chain, step)

    def next(self, context: Context) -> int:
        """The id that follows the last token fed."""
        return int(self._lib.llama_sampler_sample(self._chain, context.pointer, -1))


def quantize(source: Path, target: Path, code: int, threads: int | None = None) -> None:
    """Writes a GGUF file again with its weights quantised.

    Args:
        source: A file of f32, f16 or bf16 weights.
        target: What to write; it is not there yet.
        code: What to, an entry of llama.cpp's `llama_ftype`, as `hired.gguf.exporting.types.TYPES` has them.
        threads: Of the computation; None for as many as the machine has.

    Raises:
        HiredError: llama.cpp fails; the target may be there in part.
        MissingDependencyError: llama.cpp is not installed.
    """
    lib = library()
    parameters = lib.llama_model_quantize_default_params()
    _set(parameters, ftype=code, nthread=threads or 0)
    with _LOG.quiet():
        if lib.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(parameters)):
            raise HiredError(f"llama.cpp cannot quantise {one_line(source)}: {_LOG.said()}")


def tokens(path: Path, texts: Sequence[str]) -> list[list[int]]:
    """The ids that llama.cpp makes of texts by a file's vocabulary; special tokens in a text are taken for such.

    Args:
        path: A file with a vocabulary; weights are not read.
        texts: The texts.

    Raises:
        ModelLoadError: llama.cpp does not take the file.
        MissingDependencyError: llama.cpp is not installed.
    """
    lib = library()
    parameters = lib.llama_model_default_params()
    _set(parameters, vocab_only=True)
    with _LOG.quiet():
        lib.llama_backend_init()
        model = lib.llama_model_load_from_file(os.fsencode(path), parameters)
        if not model:
            raise ModelLoadError(f"llama.cpp cannot load {one_line(path)}: {_LOG.said()}")
        try:
            return [_ids(lib, lib.llama_model_get_vocab(model), text.encode()) for text in texts]
        finally:
            lib.llama_model_free(model)


def _ids(lib: Any, vocabulary: Any, text: bytes) -> list[int]:
    """The ids of a text, nothing added to it."""
    most = len(text) + 8  # a token has a byte at least, and a space may come in front
    found = (lib.llama_token * most)()
    count = int(lib.llama_tokenize(vocabulary, text, len(text), found, most, False, True))
    return list(found[: max(count, 0)])
