"""`hired bench` where llama.cpp runs the LLM: the file it reads, the tower beside it, and one timed run."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hired.bench.settings import Settings
from hired.errors import HiredError

if TYPE_CHECKING:
    from hired.bench.subject import Subject

__all__ = ["cache_bytes", "check_file", "generate", "load_llama", "with_file"]

NO_TOKEN = -1
"""An id that no token has."""


class _FirstToken:
    """What `generate` calls a streamer: notes when the first token was there."""

    def __init__(self) -> None:
        self.at: float | None = None
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        """Takes the prompt, then token after token."""
        if self._prompt_seen and self.at is None:
            self.at = time.perf_counter()
        self._prompt_seen = True

    def end(self) -> None:
        """The answer is complete."""


def check_file(settings: Settings) -> None:
    """Refuses what would fail later, in a process of its own: llama.cpp that is not there, a file that is no model.

    Raises:
        MissingDependencyError: llama.cpp is not installed.
        ModelLoadError, UnsupportedModelError: the file cannot be read, or holds no model that is known.
    """
    from hired.gguf.header import read_header
    from hired.gguf.llama import library
    from hired.gguf.matching import check_known

    library()
    if settings.gguf is not None:
        check_known(read_header(Path(settings.gguf)))


@contextlib.contextmanager
def with_file(settings: Settings, tell: Callable[[str], None]) -> Iterator[Settings]:
    """The settings with the file that is measured, which is there inside: made of random weights where a type is asked.

    Args:
        settings: of the bench.
        tell: called with what is being done.

    Raises:
        HiredError: there is no room for it.
        MissingDependencyError: what llama.cpp or the file needs is not installed.
    """
    here = replace(settings, device="cpu")
    if settings.gguf_type is None:
        yield here
        return
    from hired.bench.random_gguf import write_random
    from hired.costs.quants import check_type, stored_bytes
    from hired.costs.shapes import shape_config

    config, kind = shape_config(settings.subject), check_type(settings.gguf_type)
    with tempfile.TemporaryDirectory(prefix="hired-bench-") as folder:
        needed, free = stored_bytes(config, kind), shutil.disk_usage(folder).free
        if needed > 0.99 * free:
            raise HiredError(
                f"random weights of {needed / 1e9:.1f} GB do not fit into {tempfile.gettempdir()}, which has"
                f" {free / 1e9:.1f} GB left: make room, or name another folder with TMPDIR"
            )
        path = Path(folder) / f"{settings.subject}-{kind}.gguf"
        tell(f"writing random weights of {settings.subject} in {kind}, {needed / 1e9:.1f} GB")
        write_random(config, kind, path, settings.subject)
        yield replace(here, gguf=str(path))


def load_llama(settings: Settings) -> Subject:
    """The tower in PyTorch and the LLM in llama.cpp, with as many threads as PyTorch has.

    Raises:
        HiredError: checkpoint, file or dtype cannot be had, or do not belong together.
    """
    from hired.bench.subject import Subject, dtype_of, endless, image_processor
    from hired.costs.randomly import random_model
    from hired.costs.shapes import shape_config
    from hired.families import family_of
    from hired.gguf import LLM
    from hired.gguf.tower import load_tower, restore, without_layers

    if settings.gguf is None:
        raise HiredError("no GGUF file: give --gguf or --gguf-type")
    if settings.model is not None:
        tower, processor = load_tower(settings.model, "cpu", settings.dtype, settings.trust_remote_code)
        image = processor.image_processor
    else:
        config, processor = shape_config(settings.subject), None
        device = torch.device("cpu")
        tower = random_model(without_layers(config, words=False), device, dtype_of(settings, device))
        restore(tower.config, config)
        image = image_processor(config)
    tower.generation_config = endless()
    tower.generation_config.eos_token_id = NO_TOKEN  # None would leave it to the file
    llm = LLM(settings.gguf, tower=tower, processor=processor, threads=torch.get_num_threads())
    random = settings.model is None or settings.gguf_type is not None
    return Subject(settings.subject, tower, image, family_of(tower), random=random, llm=llm)


def generate(subject: Subject, inputs: Mapping[str, Any], new_tokens: int) -> tuple[float, float]:
    """(when the first token was there, when the last was); what is cached is given back, so that every run is whole."""
    first = _FirstToken()
    subject.llm.generate(inputs, max_new_tokens=new_tokens, streamer=first)
    end = time.perf_counter()
    subject.llm.forget()
    return (end if first.at is None else first.at), end


def cache_bytes(subject: Subject, inputs: Mapping[str, Any], new_tokens: int) -> int:
    """Bytes of the key-value cache that llama.cpp makes for a prompt and its answer."""
    from hired.costs.memory import context_bytes

    subject.llm.generate(inputs, max_new_tokens=new_tokens)
    return context_bytes(subject.model.config, subject.llm.context_size)
