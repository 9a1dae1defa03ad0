"""``hired serve``: vLLM's own server, under a budget."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hired.cli import output
from hired.options import full_dtype

if TYPE_CHECKING:
    from hired.serving.launch import Server

__all__ = ["run"]


def run(words: Sequence[str], budget: int | float | str, alpha: float, request_budgets: bool, method: str) -> None:
    """Check, say what will be kept, and serve until stopped.

    Raises:
        HiredError: Settings that will not do, or a server that would not keep to the budget.
    """
    from hired.serving.launch import prepare, require_vllm

    require_vllm()
    from hired.core.budget import Budget, check_alpha
    from hired.vllm.settings import check_method

    Budget.parse(budget)
    check_alpha(alpha)
    check_method(method)
    server = prepare(with_full_dtypes(words), budget, alpha, request_budgets, method)
    show(server)
    sys.stdout.flush()
    server.start()


def with_full_dtypes(words: Sequence[str]) -> list[str]:
    """vLLM's options with every ``--dtype`` by the name that vLLM knows."""
    full: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if full and full[-1] == "--dtype":
            full.append(full_dtype(word))
        else:
            full.append(f"--dtype={full_dtype(value)}" if equals and name == "--dtype" else word)
    return full


def show(server: Server) -> None:
    """Print what the server will keep of common picture sizes, and what requests may ask for."""
    from vllm import __version__

    from hired.serving.capacity import TEXT, rows

    arguments, settings = server.arguments, server.settings
    share = settings.budget.share
    what = (
        f"{settings.budget.tokens:,} tokens of each picture"
        if share is None
        else f"{float(share):.4g} of the visual tokens"
    )
    how = settings.method + (f", alpha {settings.alpha:g}" if settings.takes_alpha else "")
    print(f"{arguments.model_tag}, {server.architecture}: keeps {what} by {how}; vLLM {__version__}")
    cells = [
        [
            "x".join(map(str, row.size)),
            f"{row.full:,}",
            "refused" if row.kept is None else f"{row.kept:,}",
            "" if row.gain is None else f"{row.gain:.1f} times",
        ]
        for row in rows(server.geometry, settings.budget)
    ]
    output.table(["picture", "visual tokens", "kept", "requests in the KV cache"], cells)
    print(
        f"A request here is one picture and {TEXT} other tokens; the log says how many fit, once the KV cache is made."
    )
    if arguments.trust_request_mm_kwargs:
        print(
            "Requests may lower the budget (mm_processor_kwargs: hired_budget). The same switch of vLLM's lets them set"
            " any option of the image processor and of the reading of pictures, which can cost time and memory: serve"
            " clients that you trust."
        )
    if arguments.enable_prompt_tokens_details:
        print("usage.prompt_tokens_details.multimodal_tokens tells each client what was kept.")
