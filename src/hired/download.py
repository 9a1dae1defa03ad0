"""Downloads over http and https: one deadline for all of it, and no password in what goes wrong.

The work is done in a thread of its own, which the caller waits for until the deadline and no longer: looking up a
name, connecting, redirects, headers and bodies that drip all count. Its sockets are shut down then, so it ends soon.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

__all__ = ["DownloadError", "download", "without_password"]

Keep = Callable[[socket.socket], None]

_CHUNK = 1 << 16
_REDIRECTS = 10
_MOVED = (301, 302, 303, 307, 308)
_HEADERS = {"User-Agent": "hired (Python urllib)", "Accept": "image/*,*/*;q=0.5"}
_SAFE = "%/:=&?~#+!$,;'@()*[]"
_PORTS = {"http": 80, "https": 443}


class DownloadError(Exception):
    """What went wrong, in words that can follow "cannot download URL: "."""


def download(url: str, seconds: float, limit: int) -> bytes:
    """The body of a URL.

    Args:
        url: An http or https URL; ``user:password@`` in it is sent as basic authentication, to its host only.
        seconds: The longest that all of it may take.
        limit: Bytes to read at most; one more is read where there are more.

    Raises:
        DownloadError: It cannot be had, or not in time.
    """
    work = _Download(url, time.monotonic() + seconds, limit)
    thread = threading.Thread(target=work.run, name="hired download", daemon=True)
    try:
        if seconds > 0:
            thread.start()
            thread.join(seconds)
    finally:  # an interruption too
        work.stop()
    if work.body is not None:
        return work.body
    if work.error is not None and time.monotonic() < work.deadline:
        raise work.error
    raise DownloadError(f"not done within {seconds:g} s")


def without_password(text: str) -> str:
    """A text with what stands before the ``@`` of a URL's host replaced by ``***``."""
    start = text.find("://") + 3
    if start < 3:
        return text
    end = next((i for i in range(start, len(text)) if text[i] in "/?#\\"), len(text))
    at = text.rfind("@", start, end)
    if at < 0 and re.fullmatch(r"[^\[\]:]+:(?!\d*$).*", text[start:end]):
        at = text.rfind("@")  # what looks like a port is a piece of a password with a slash in it
    return text if at < 0 else f"{text[:start]}***{text[at:]}"


class _Download:
    """One download, which another thread may stop.

    Attributes:
        deadline: When it must be done, by `time.monotonic`.
        body: What was read, once it is there.
        error: What went wrong, where something did.
    """

    def __init__(self, url: str, deadline: float, limit: int) -> None:
        self.deadline = deadline
        self.body: bytes | None = None
        self.error: DownloadError | None = None
        self._url, self._limit = url, limit
        self._lock = threading.Lock()
        self._stopped = False
        self._sockets: list[socket.socket] = []
        self._opener = urllib.request.build_opener(_Stay, _Http(self.keep), _Https(self.keep))

    def run(self) -> None:
        """Download; never raises."""
        body = failure = None
        try:
            body = self._follow()
        except DownloadError as error:
            failure = error
        except urllib.error.HTTPError as error:
            failure = DownloadError(f"HTTP {error.code} {error.reason}")
        except Exception as error:  # urllib, ssl, idna and http.client raise many kinds
            failure = DownloadError(_reason(error))
        with self._lock:
            if not self._stopped:  # else what was read ended where the connection was ended
                self.body, self.error = body, failure

    def stop(self) -> None:
        """End all connections, let none be made, and leave what is there as it is."""
        with self._lock:
            self._stopped = True
            for each in self._sockets:
                with contextlib.suppress(OSError):  # closed by the other side
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            self._sockets.clear()

    def keep(self, connected: socket.socket) -> None:
        """Note a connection, so that `stop` can end it: a duplicate, as TLS takes the socket itself over."""
        with self._lock:
            if self._stopped:
                raise TimeoutError
            self._sockets.append(connected.dup())

    def _left(self) -> float:
        """Seconds left, more than none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _follow(self) -> bytes:
        """The body at the end of all redirects."""
        request = _request(self._url)
        for _ in range(_REDIRECTS + 1):
            with self._opener.open(request, timeout=self._left()) as response:
                if response.status not in _MOVED:
                    return self._read(response)
                request = _next(request, response)
        raise DownloadError(f"more than {_REDIRECTS} redirects")

    def _read(self, response: Any) -> bytes:
        """The body, up to a byte more than the limit."""
        expected = response.headers.get("Content-Length", "")
        body = bytearray()
        while len(body) <= self._limit and (chunk := response.read1(_CHUNK)):
            body += chunk
            self._left()
        if len(body) <= self._limit and expected.isdecimal() and len(body) < int(expected):
            raise DownloadError(f"it broke off after {len(body):,} of {int(expected):,} bytes")
        return bytes(body)


def _request(url: str, encoding: str = "utf-8") -> urllib.request.Request:
    """The request for a URL, its password taken out: urllib never sees it, so its errors cannot tell it."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # its message may hold the password
        raise DownloadError("the URL is not valid") from None
    try:
        port = parts.port
    except ValueError:
        raise DownloadError("the port in the URL is not a number of 0 to 65535") from None
    if not parts.hostname:
        raise DownloadError("the URL names no host")
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    host = f"[{host}]" if ":" in host else urllib.parse.quote(host, safe="%")
    path, query = (urllib.parse.quote(part, safe=_SAFE, encoding=encoding) for part in (parts.path, parts.query))
    clean = urllib.parse.urlunsplit((parts.scheme, host if port is None else f"{host}:{port}", path, query, ""))
    request = urllib.request.Request(clean, headers=_HEADERS)
    if parts.username is not None:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    return request


def _next(request: urllib.request.Request, response: Any) -> urllib.request.Request:
    """The request that a redirect asks for; http and https only."""
    location = response.headers.get("Location")
    if not location:
        raise DownloadError(f"HTTP {response.status} names no place to go to")
    try:
        target = urllib.parse.urljoin(request.full_url, location)
        scheme = urllib.parse.urlsplit(target).scheme
    except ValueError:
        raise DownloadError("it redirects to a URL that is not valid") from None
    if scheme not in _PORTS:
        raise DownloadError(f"only http and https URLs are read, and it redirects to {without_password(target)}")
    made = _request(target, encoding="latin-1")  # as http.client decodes headers
    known = request.get_header("Authorization")
    if known is not None and not made.has_header("Authorization") and _origin(made) == _origin(request):
        made.add_unredirected_header("Authorization", known)
    return made


def _origin(request: urllib.request.Request) -> tuple[str, str | None, int | None]:
    """Scheme, host and port."""
    parts = urllib.parse.urlsplit(request.full_url)
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


def _reason(error: Exception) -> str:
    """What an exception of the network says."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.strerror:
        return str(cause.strerror)
    return str(cause) or type(cause).__name__


class _Stay(urllib.request.HTTPRedirectHandler):
    """Hands redirects back as they are."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """The answer itself."""
        return fp

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Connection(http.client.HTTPConnection):
    """A connection that tells of its socket as soon as there is one."""

    keep: Keep

    def connect(self) -> None:
        """Connect and tell."""
        super().connect()
        self.keep(self.sock)


class _SafeConnection(http.client.HTTPSConnection, _Connection):
    """The same with TLS, which begins after the socket was told of."""


class _Http(urllib.request.HTTPHandler):
    def __init__(self, keep: Keep) -> None:
        super().__init__()
        self._keep = keep

    def http_open(self, req: urllib.request.Request) -> Any:
        """Open an http URL."""
        return self.do_open(functools.partial(_made, _Connection, self._keep), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, keep: Keep) -> None:
        super().__init__()
        self._keep = keep

    def https_open(self, req: urllib.request.Request) -> Any:
        """Open an https URL."""
        return self.do_open(functools.partial(_made, _SafeConnection, self._keep), req)


def _made(kind: type[_Connection], keep: Keep, host: str, **options: Any) -> _Connection:
    """A connection for `do_open`."""
    made = kind(host, **options)
    made.keep = keep
    return made
