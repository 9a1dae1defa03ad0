"""What a server says once its KV cache has been made."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from hired.serving.capacity import TEXT, rows
from hired.vllm.settings import Settings

__all__ = ["Announce"]

Message = MutableMapping[str, Any]

logger = logging.getLogger("vllm.hired")


class Announce:
    """ASGI middleware that `hired serve` hands to vLLM's server, which starts it when the engine is ready.

    It writes how many requests fit the KV cache, once; requests pass through it untouched.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        """Wraps an ASGI application."""
        self.app = app

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Passes everything on."""
        if scope["type"] == "lifespan":
            for line in fitting(scope["app"].state.engine_client.vllm_config):
                logger.info(line)
        await self.app(scope, receive, send)


def fitting(config: Any) -> list[str]:
    """Lines that say how many requests fit the KV cache of an engine with this `VllmConfig`, pruned and not."""
    model, cache = config.model_config, config.cache_config
    settings = Settings.of(model.hf_config)
    tokens = cache.kv_cache_size_tokens
    if settings is None or not tokens:
        return []
    which = "the KV cache" if config.parallel_config.data_parallel_size == 1 else "each replica's KV cache"
    lines = [
        f"HiRED: {which} has room for {tokens:,} tokens. Requests of one picture and {TEXT} other tokens that fit:"
    ]
    from vllm.multimodal import MULTIMODAL_REGISTRY

    for row in rows(MULTIMODAL_REGISTRY.get_processing_info(model).geometry, settings.budget):
        before, after = row.fit(tokens, cache.block_size, model.max_model_len)
        size, kept = "x".join(map(str, row.size)), "refused" if row.kept is None else f"{row.kept:,}"
        lines.append(
            f"HiRED: {size:>9}: {kept:>6} of {row.full:>6,} visual tokens; {after:>5,} requests, {before:,} unpruned"
        )
    return lines
