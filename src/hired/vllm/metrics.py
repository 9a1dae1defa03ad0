"""Counters that appear in the `/metrics` of vLLM's server, beside its own, and where requests are logged."""

from typing import NamedTuple

from prometheus_client import REGISTRY, Counter  # type: ignore[import-not-found, unused-ignore]

REQUESTS = Counter("hired:requests", "Requests with pictures, but for those that name a picture by its id only.")
FULL = Counter("hired:visual_tokens", "Visual tokens that the pictures of requests have in the untouched model.")
KEPT = Counter("hired:kept_visual_tokens", "Visual tokens of the same pictures that the language model sees.")

LOG = "vllm.hired"
"""Our logger, below vLLM's, so that its handlers and its level apply."""

REQUEST_LOG = "vllm.hired.requests"
"""The logger that has a line for every request with pictures; `hired serve` silences it unless told otherwise."""


class Totals(NamedTuple):
    """What this process has counted since it began.

    Attributes:
        requests: with pictures.
        full: visual tokens of their pictures in the untouched model.
        kept: those of them that the language model sees.
    """

    requests: int
    full: int
    kept: int


def count(full: int, kept: int) -> None:
    """Counts the pictures of one request: all their visual tokens, and those that were kept."""
    REQUESTS.inc()
    FULL.inc(full)
    KEPT.inc(kept)


def totals() -> Totals:
    """What was counted so far."""
    names = ("hired:requests_total", "hired:visual_tokens_total", "hired:kept_visual_tokens_total")
    return Totals(*(int(REGISTRY.get_sample_value(name) or 0) for name in names))
