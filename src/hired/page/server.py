"""Serving the page: to this machine, from this machine, and with nothing from anywhere else."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hired.errors import HiredError, MissingDependencyError

if TYPE_CHECKING:
    from hired.loading import Loaded
    from hired.page.asgi import Guard
    from hired.page.reader import Reader
    from hired.page.tabs import Tabs

__all__ = ["HOST", "PORT", "application", "is_local", "listen", "own_folder", "require", "serve"]

_LOOPBACK = re.compile(r"127(\.\d{1,3}){3}")
HOST, PORT = "127.0.0.1", 7860


def require() -> None:
    """Raise `MissingDependencyError` where Gradio is not installed."""
    import importlib.util

    if importlib.util.find_spec("gradio") is None:
        raise MissingDependencyError(
            "the page needs Gradio: pip install gradio, or install hired-vlm with its page extra"
        )


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    return host in ("localhost", "::1") or _LOOPBACK.fullmatch(host) is not None


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: An address or name of this machine.
        port: 0 for any that is free.

    Raises:
        HiredError: The address is not this machine's, or the port is in use.
    """
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if os.name == "posix":  # elsewhere it would let two programs have one port
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
        held.listen()
    except (OSError, OverflowError, TypeError, ValueError) as error:  # but for the first: what is no name of a host
        held.close()
        reason = getattr(error, "strerror", None) or error
        raise HiredError(f"cannot serve at {host}:{port}: {reason}; name another --port or --host") from error
    return held


@contextlib.contextmanager
def own_folder() -> Iterator[None]:
    """A folder that is this user's alone for what Gradio keeps on disk, gone at the end."""
    name = "GRADIO_TEMP_DIR"  # read when the page is made and when a file arrives; Gradio has no argument for it
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory(prefix="hired-page-", ignore_cleanup_errors=True) as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


def application(reader: Reader, tabs: Tabs, host: str = HOST) -> Guard:
    """The page as an ASGI application.

    Args:
        reader: Answers.
        tabs: Holds the pictures.
        host: The address it will be served at. At this machine's own, requests that name another are refused: so no
            site that a browser visits can reach the page under a name of its own.
    """
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from hired.page.asgi import Guard
    from hired.page.interface import LOOK, STYLE, interface

    app = FastAPI(openapi_url=None)
    if is_local(host):
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", host, f"[{host}]"])
    gradio.mount_gradio_app(
        app,
        interface(reader, tabs),
        path="/",
        server_name=host,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size="256mb",
        theme=LOOK,
        css=STYLE,
    )
    return Guard(app)


def serve(loaded: Loaded, held: socket.socket, max_new_tokens: int = 64) -> None:
    """Serve the page until it is interrupted.

    Args:
        loaded: The model that answers.
        held: Listens.
        max_new_tokens: The longest answer.
    """
    from hired.page.asgi import Server
    from hired.page.reader import Reader
    from hired.page.tabs import Tabs

    reader = Reader(loaded, max_new_tokens)
    with own_folder():
        Server(application(reader, Tabs(reader), str(held.getsockname()[0]))).run(sockets=[held])
