"""What stands between the page and the network: what browsers may do, and an end that waits for no open tab."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import uvicorn

__all__ = ["POLICY", "Guard", "Server"]

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "frame-ancestors 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)
"""What browsers are told to fetch: nothing from another address, whatever the page or Gradio's own scripts ask for."""

_HEADERS = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]


class Guard:
    """An application, for its own pages only, its answers with `POLICY`, and its event streams ended by `ending`.

    What a page of another site sends is refused: browsers let it send, and only keep the answer from it.
    A tab holds event streams open for as long as it is; a server that ends would wait for them, then tear them down.
    """

    def __init__(self, app: Any) -> None:
        """Take the application that answers."""
        self._app = app
        self.ending = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = dict(scope["headers"])
        if b"origin" in asked and asked[b"origin"].partition(b"//")[2] != asked.get(b"host"):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"only this page's own requests are answered\n"})
            return
        streams = complete = False

        async def sent(message: Any) -> None:
            nonlocal streams, complete
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                streams = any(name.lower() == b"content-type" and b"event-stream" in value for name, value in headers)
                message = {**message, "headers": headers + _HEADERS}
            complete = complete or (message["type"] == "http.response.body" and not message.get("more_body"))
            await send(message)

        answering = asyncio.ensure_future(self._app(scope, receive, sent))
        ending = asyncio.ensure_future(self.ending.wait())
        try:
            await asyncio.wait({answering, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not streams or answering.done():
                await answering
                return
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering
            if not complete:  # what is cancelled may end it itself
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            ending.cancel()
            answering.cancel()  # where this request itself is cancelled


class Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn's server of a guarded application, quiet but for errors."""

    def __init__(self, app: Guard) -> None:
        """Take the application."""
        super().__init__(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2, ws="none"))
        self._guard = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End open streams first."""
        self._guard.ending.set()
        await super().shutdown(sockets)
