"""``hired page``: the local page."""

from __future__ import annotations

import sys

from hired.cli import output, waiting
from hired.page import server

__all__ = ["run"]


def run(
    model: str = "tiny",
    host: str = server.HOST,
    port: int = server.PORT,
    max_new_tokens: int = 64,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    load: str | None = None,
) -> None:
    """Load a model and serve the page until interrupted.

    Raises:
        HiredError: Gradio is missing, the address cannot be had, or the model cannot.
    """
    server.require()
    with server.listen(host, port) as held:
        loaded = waiting.load(model, device, dtype, trust_remote_code, load)
        address, number = held.getsockname()[:2]
        if not server.is_local(address):
            output.warn(f"whoever reaches {address} can use the page and this machine's model: there is no password")
        print(f"http://{f'[{address}]' if ':' in address else address}:{number}  (Ctrl-C ends it)")
        sys.stdout.flush()
        server.serve(loaded, held, max_new_tokens)
