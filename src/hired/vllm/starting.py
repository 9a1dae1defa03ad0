"""What is checked when an engine starts.

vLLM takes a `ValueError` of a processing info for a model without pictures, and serves text only. So what is wrong
here is a `StartError`, which ends the start.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from hired.errors import BudgetError, HiredError
from hired.vllm.geometry import Geometry
from hired.vllm.limits import served_geometry
from hired.vllm.settings import REQUEST_KEY, Settings

DRAFTERS = ("ngram", "ngram_gpu", "suffix")
"""Methods of speculative decoding that guess from the tokens alone, which a budget does not change."""

ENCODER_OPTIONS = ("compile_mm_encoder", "cudagraph_mm_encoder")
"""Entries of vLLM's compilation settings under which the encoder's attention does not pass where it is read."""

RUST = "VLLM_USE_RUST_FRONTEND"
"""The variable that switches vLLM's frontend in Rust on."""


class StartError(HiredError, RuntimeError):
    """The engine is set up in a way in which it would not keep to its budget."""


@dataclass(frozen=True)
class SetUp:
    """What of an engine's set-up goes around a budget.

    Attributes:
        stages: ranks of pipeline parallelism.
        drafter: the method of speculative decoding, None without.
        encoder: those of `ENCODER_OPTIONS` that are on.
        adapters: whether LoRA adapters may be inside the vision encoder.
        embeds: whether the user lets requests send embeddings in place of pictures.
        rust: whether vLLM's frontend in Rust processes the pictures, which runs no plugin.
    """

    stages: int = 1
    drafter: str | None = None
    encoder: Sequence[str] = ()
    adapters: bool = False
    embeds: bool = False
    rust: bool = field(default_factory=lambda: os.environ.get(RUST, "0") not in ("", "0"))

    @classmethod
    def of(cls, vllm_config: Any) -> "SetUp":
        """That of vLLM's `VllmConfig`."""
        lora, drafter = vllm_config.lora_config, vllm_config.speculative_config
        multimodal, compilation = vllm_config.model_config.multimodal_config, vllm_config.compilation_config
        # Those who receive caches let requests name a picture without it, and vLLM switches the option on for them.
        # The requests themselves are checked, and one with embeddings is refused.
        ends = (vllm_config.kv_transfer_config, vllm_config.ec_transfer_config)
        receives = (ends[0] is not None and ends[0].is_kv_consumer) or (ends[1] is not None and ends[1].is_ec_consumer)
        return cls(
            stages=vllm_config.parallel_config.pipeline_parallel_size,
            drafter=None if drafter is None else drafter.method,
            encoder=encoder_options(compilation),
            adapters=lora is not None and lora.enable_tower_connector_lora,
            embeds=multimodal is not None and multimodal.enable_mm_embeds and not receives,
        )

    def check(self) -> None:
        """Refuses what would give wrong answers, or whole pictures.

        Raises:
            StartError: such a set-up; one line that says which option to leave out.
        """
        if self.stages > 1:
            raise StartError(
                "pipeline parallelism is not supported with a budget: leave out --pipeline-parallel-size, and use"
                " --tensor-parallel-size"
            )
        if self.drafter is not None and self.drafter not in DRAFTERS:
            raise StartError(
                f"speculative decoding by {self.drafter!r} is not supported with a budget: its drafter reads what"
                f" pictures look like; use one of {', '.join(DRAFTERS)}, or leave out --speculative-config"
            )
        if self.encoder:
            raise StartError(
                "the vision encoder cannot be compiled or captured with a budget, as its attention is read: leave"
                f" {' and '.join(self.encoder)} out of --compilation-config"
            )
        if self.adapters:
            raise StartError(
                "LoRA adapters inside the vision encoder are not supported with a budget: leave out"
                " --enable-tower-connector-lora"
            )
        if self.embeds:
            raise StartError(
                "embeddings of pictures come without attention and cannot be pruned: leave out --enable-mm-embeds"
            )
        if self.rust:
            raise StartError(
                f"vLLM's frontend in Rust runs no plugin, and pictures would keep all their tokens: unset {RUST}"
            )


def encoder_options(compilation: Any) -> tuple[str, ...]:
    """Those of `ENCODER_OPTIONS` that vLLM's `CompilationConfig` has on."""
    return tuple(name for name in ENCODER_OPTIONS if getattr(compilation, name, False))


def check_options(options: Any) -> None:
    """Refuses a server's own `mm_processor_kwargs` with a budget in them.

    Raises:
        BudgetError: there is one.
    """
    if REQUEST_KEY in (options or {}):
        raise BudgetError(
            f"{REQUEST_KEY} is for requests: the server's budget goes into --budget, or into"
            ' --hf-overrides \'{"hired": {"budget": ...}}\''
        )


@contextmanager
def starting() -> Iterator[None]:
    """Makes a `StartError` of every `ValueError` inside.

    Raises:
        StartError: with the words of the error.
    """
    try:
        yield
    except ValueError as error:
        raise StartError(str(error)) from error


def started(model_config: Any) -> tuple[Settings, Geometry] | None:
    """Settings and geometry of a served model, None where its configuration has no entry `hired`.

    vLLM asks anew for every request: a configuration is looked at once.

    Args:
        model_config: vLLM's `ModelConfig`.

    Raises:
        StartError: settings out of range, or a budget that leaves nothing of the largest picture.
        UnsupportedModelError: an encoder that HiRED cannot read, or this vLLM is outside the tested range.
    """
    return _started(_Same(model_config))


def check_engine(vllm_config: Any) -> tuple[Settings, Geometry] | None:
    """What `started` finds of an engine that keeps to it, None without a budget.

    Args:
        vllm_config: vLLM's `VllmConfig`.

    Raises:
        StartError: as `started`, and a set-up that goes around the budget.
        UnsupportedModelError: as `started`.
    """
    found = started(vllm_config.model_config)
    if found is not None:
        SetUp.of(vllm_config).check()
    return found


class _Same:
    """A key that is equal for one object only, and keeps it alive: configurations cannot be hashed."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __hash__(self) -> int:
        return id(self.held)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.held is self.held


@lru_cache(maxsize=8)
def _started(key: _Same) -> tuple[Settings, Geometry] | None:
    model_config = key.held
    with starting():
        settings = Settings.of(model_config.hf_config)
        if settings is None:
            return None
        check_options(getattr(model_config.multimodal_config, "mm_processor_kwargs", None))
        geometry = served_geometry(model_config)
        settings.budget.allowance(geometry.largest)
    return settings, geometry
