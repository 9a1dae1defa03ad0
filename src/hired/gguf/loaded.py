"""A checkpoint's encoder in PyTorch and its language model in a GGUF file, as `hired.loading.Loaded` has all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hired import loading
from hired.gguf.header import read_header
from hired.gguf.llama import library
from hired.gguf.llm import LLM
from hired.gguf.matching import check_known
from hired.gguf.tower import load_tower
from hired.reduction.entries import per_token

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LoadedFile", "load"]


@dataclass(frozen=True)
class LoadedFile(loading.Loaded):
    """A tower and a file, ready to run.

    Attributes:
        llm: What answers in the model's place.
    """

    llm: LLM

    def turn(self, inputs: Mapping[str, Any], max_new_tokens: int, streamer: Any = None) -> tuple[Tensor, Any]:
        """As of a whole model; what it hands on are the inputs, since llama.cpp knows by them what its cache holds."""
        return self.llm.generate(inputs, max_new_tokens=max_new_tokens, streamer=streamer), inputs

    def further(self, ids: Tensor, cache: Any) -> Mapping[str, Any]:
        """As of a whole model."""
        longer, more = cache.copy(), ids.shape[1] - cache["input_ids"].shape[1]
        for name, value in per_token(cache).items():
            longer[name] = torch.cat((value, value.new_zeros(1, more)), 1)  # kinds of tokens: text
        places = cache.get("position_ids")
        if places is not None:
            steps = torch.arange(1, more + 1, device=places.device, dtype=places.dtype)
            longer["position_ids"] = torch.cat((places, (places.max() + steps).expand(*places.shape[:-1], -1)), -1)
        longer |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return longer  # type: ignore[no-any-return]  # as `hired.reduce` returned it


def load(
    name: str,
    file: Path,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    words: bool = False,
) -> LoadedFile:
    """Loads a checkpoint's encoder and projector, and its language model from a GGUF file.

    Args:
        name: of the checkpoint: ``tiny``, a directory, or a hub id.
        file: the GGUF file.
        device, dtype: of the encoder, as in `hired.gguf.load_tower`; llama.cpp runs on the CPU.
        trust_remote_code, words: as in `hired.gguf.load_tower`.

    Raises:
        ModelLoadError: checkpoint or file cannot be had, or are not of one model.
        MissingDependencyError: the extra `gguf` is not installed.
        UnsupportedModelError: a model that HiRED or llama.cpp does not know.
    """
    library()
    check_known(read_header(file))  # before the checkpoint is downloaded
    tower, processor = load_tower(name, device, dtype, trust_remote_code, words)
    return LoadedFile(name, tower, processor, LLM(file, tower=tower, processor=processor))
