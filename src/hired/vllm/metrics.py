"""Counters that appear in the `/metrics` of vLLM's server, beside its own."""

from prometheus_client import Counter  # type: ignore[import-not-found, unused-ignore]

FULL = Counter("hired:visual_tokens", "Visual tokens that the pictures of requests have in the untouched model.")
KEPT = Counter("hired:kept_visual_tokens", "Visual tokens of the same pictures that the language model sees.")


def count(full: int, kept: int) -> None:
    """Counts the pictures of one request: all their visual tokens, and those that were kept."""
    FULL.inc(full)
    KEPT.inc(kept)
