"""What a server says in its log: once, how many requests fit its KV cache, and every minute what it kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from hired.serving.capacity import TEXT, rows
from hired.vllm.metrics import LOG, REQUEST_LOG, Totals, totals
from hired.vllm.starting import started

__all__ = ["EVERY", "Announce"]

Message = MutableMapping[str, Any]

EVERY = 60.0
"""Seconds between two lines that say what was kept."""

logger = logging.getLogger(LOG)


class Announce:
    """ASGI middleware that `hired serve` hands to vLLM's server, which starts it when the engine is ready.

    It writes how many requests fit the KV cache, and then once a minute what was kept in it, by each of the server's
    processes that take requests; requests pass through it untouched. There is a line for every request only with vLLM's
    `--enable-log-requests`.
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
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        state = scope["app"].state
        if not state.args.enable_log_requests:
            logging.getLogger(REQUEST_LOG).setLevel(logging.WARNING)
        for line in fitting(state.engine_client.vllm_config):
            logger.info(line)
        telling = asyncio.create_task(tell())
        try:
            await self.app(scope, receive, send)
        finally:
            telling.cancel()


async def tell(every: float = EVERY) -> None:
    """Logs what was kept in the last `every` seconds, without end; nothing where there was no request with pictures."""
    before = totals()
    while True:
        await asyncio.sleep(every)
        now = totals()
        if now.requests > before.requests:
            logger.info(told(before, now, every))
        before = now


def told(before: Totals, now: Totals, every: float) -> str:
    """What was counted between two totals, `every` seconds apart."""
    requests, full, kept = (new - old for old, new in zip(before, now, strict=True))
    return (
        f"HiRED: {requests:,} requests with pictures in {every:g} s; kept {kept:,} of {full:,} visual tokens"
        f" ({100 * kept / max(full, 1):.1f} %)"
    )


def fitting(config: Any) -> list[str]:
    """Lines that say how many requests fit the KV cache of an engine with this `VllmConfig`, pruned and not."""
    model, cache = config.model_config, config.cache_config
    found, tokens = started(model), cache.kv_cache_size_tokens
    if found is None or not tokens:
        return []
    settings, geometry = found
    which = "the KV cache" if config.parallel_config.data_parallel_size == 1 else "each replica's KV cache"
    lines = [
        f"HiRED: {which} has room for {tokens:,} tokens. Requests of one picture and {TEXT} other tokens that fit:"
    ]
    for row in rows(geometry, settings.budget):
        before, after = row.fit(tokens, cache.block_size, model.max_model_len)
        size, kept = "x".join(map(str, row.size)), "refused" if row.kept is None else f"{row.kept:,}"
        lines.append(
            f"HiRED: {size:>9}: {kept:>6} of {row.full:>6,} visual tokens; {after:>5,} requests, {before:,} unpruned"
        )
    return lines
