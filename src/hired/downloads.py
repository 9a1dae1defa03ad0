"""Downloads over http and https: one deadline for everything, redirects nowhere else, no passwords in errors."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

__all__ = ["DownloadError", "download", "without_password"]

_CHUNK = 1 << 16


class DownloadError(Exception):
    """What went wrong, to be said behind the name of the URL."""


def download(url: str, seconds: float, most: int) -> bytes:
    """The body of a URL.

    Names, connections, redirects, headers and body are had in a thread of their own, which is left behind at the
    deadline: whatever it hangs on, this function returns. Its connection is shut then, which ends the thread.

    Args:
        url: http or https, without a user name.
        seconds: for all of it.
        most: bytes to read; a longer body is cut one byte later.

    Raises:
        DownloadError: it cannot be had.
    """
    _check(url)
    fetch = _Fetch(url, time.monotonic() + seconds, most)
    thread = threading.Thread(target=fetch.run, name="hired-download", daemon=True)
    thread.start()
    try:
        thread.join(max(seconds, 0))
        late = thread.is_alive()
    finally:
        fetch.stop()
    if late:  # whatever comes of it now is our own doing
        raise DownloadError(f"no answer within {seconds:g} s")
    if fetch.error is not None:
        raise DownloadError(_words(fetch.error, seconds)) from fetch.error
    return fetch.body


def without_password(text: str) -> str:
    """A URL, or what was typed as one, with ``***`` in the place of a user name and password."""
    head, mark, rest = text.partition("://")
    if not mark or "@" not in rest:
        return text
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in host:
        end = len(host.rpartition("@")[0])
    elif re.fullmatch(r"[^:]+|[^:]+:\d*|\[.*\](:\d*)?", host):  # a host and port: the @ is in the path
        return text
    else:  # a password with a slash in it
        end = len(rest.rpartition("@")[0])
    return f"{head}://***{rest[end:]}"


def _check(url: str) -> None:
    """Refuses what urllib would read otherwise than meant, and what it would echo a password of."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise DownloadError("the URL names no host and port that can be read") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise DownloadError("only http and https URLs are read")
    if "@" in parts.netloc:
        raise DownloadError("URLs with a user name or password are not read; download the picture and name the file")
    if not host:
        raise DownloadError("the URL names no host and port that can be read")


class _Fetch:
    """One download. `body` or `error` is set when `run` is through."""

    def __init__(self, url: str, deadline: float, most: int) -> None:
        self.url, self.deadline, self.most = url, deadline, most
        self.body = b""
        self.error: Exception | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []

    def run(self) -> None:
        try:
            self.body = self._read()
        except Exception as error:  # handed to the thread that waits
            self.error = error

    def stop(self) -> None:
        """Shuts what is open. A download that is through has closed it already."""
        with self._lock:
            self._stopped = True
            for sock in self._open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except (OSError, ValueError):
                    continue  # not connected any more

    def left(self) -> float:
        """Seconds to the deadline."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0 or self._stopped:
            raise TimeoutError
        return seconds

    def opened(self, sock: socket.socket) -> None:
        """Notes a connection."""
        with self._lock:
            self._open.append(sock)
        self.left()

    def _read(self) -> bytes:
        request = urllib.request.Request(
            urllib.parse.quote(self.url, safe="%/:=&?~#+!$,;'@()*[]"),
            headers={"User-Agent": "hired (Python urllib)", "Accept": "image/*,*/*;q=0.5"},
        )
        opener = urllib.request.OpenerDirector()  # knows http and https only, unlike that of `build_opener`
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Redirects(),
            _Http(self),
            _Https(self),
        ):
            opener.add_handler(handler)
        chunks: list[bytes] = []
        size = 0
        with opener.open(request, timeout=self.left()) as response:
            expected = response.headers.get("Content-Length", "")
            while size <= self.most and (chunk := response.read1(_CHUNK)):
                size += len(chunk)
                chunks.append(chunk)
                self.left()
        if size <= self.most and expected.isdecimal() and size < int(expected):
            raise DownloadError(f"it broke off after {size:,} of {int(expected):,} bytes")
        return b"".join(chunks)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https; urllib's own goes to ftp, too."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        target = headers.get("location") or headers.get("uri")
        if target is not None:
            try:
                _check(urllib.parse.urljoin(req.full_url, target))
            except (DownloadError, ValueError) as error:
                where = without_password(" ".join(target.split()))
                raise DownloadError(f"it redirects to {where[:60]}: {error}") from None
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Http(urllib.request.HTTPHandler):
    """Connections that a `_Fetch` knows of."""

    def __init__(self, fetch: _Fetch) -> None:
        super().__init__()
        self.fetch = fetch

    def http_open(self, req: Any) -> Any:
        req.timeout = self.fetch.left()
        return self.do_open(_known(http.client.HTTPConnection, self.fetch), req)


class _Https(urllib.request.HTTPSHandler):
    """The same, encrypted."""

    def __init__(self, fetch: _Fetch) -> None:
        super().__init__()
        self.fetch = fetch

    def https_open(self, req: Any) -> Any:
        req.timeout = self.fetch.left()
        return self.do_open(_known(http.client.HTTPSConnection, self.fetch), req)


def _known(kind: Any, fetch: _Fetch) -> Any:
    """A class of connections that tell `fetch` when they are open."""

    class Known(kind):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            fetch.opened(self.sock)

    return Known


def _words(error: Exception, seconds: float) -> str:
    """What an exception of urllib's says."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    cause: object = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {seconds:g} s"
    if isinstance(cause, OSError) and cause.strerror and type(cause).__module__ != "ssl":
        return str(cause.strerror)
    return str(cause) or type(cause).__name__
