"""Pictures from URLs: what is followed, how long it may take, and what errors say. Servers are on this machine."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from hired import images
from hired.downloads import without_password
from tests.test_images import failure, noise, saved


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    picture = saved(noise()).getvalue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/picture.png")
                self.end_headers()
                return
            if self.path.startswith("/to?"):
                self.send_response(302)
                self.send_header("Location", self.path[4:])
                self.end_headers()
                return
            if self.path == "/loop":
                self.send_response(302)
                self.send_header("Location", "/loop")
                self.end_headers()
                return
            if self.path.startswith("/around"):
                time.sleep(0.1)
                self.send_response(302)
                self.send_header("Location", f"/around?{time.monotonic()}")
                self.end_headers()
                return
            if self.path == "/gone":
                self.send_error(404)
                return
            body = {"/text": b"<html>no</html>", "/nothing": b""}.get(self.path, picture)
            self.send_response(200)
            claimed = len(body) * (2 if self.path == "/cut" else 1)
            self.send_header("Content-Length", str(claimed))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


@pytest.mark.parametrize("path", ["/picture.png", "/moved", "/späte bilder?x=1%20"])
def test_url(server: str, path: str) -> None:
    assert np.array_equal(np.asarray(images.load(server + path)), np.asarray(noise()))


@pytest.mark.parametrize(
    ("path", "words"),
    [("/gone", "HTTP 404"), ("/text", "not a picture"), ("/nothing", "empty"), ("/cut", "")],
)
def test_url_that_fails(server: str, path: str, words: str) -> None:
    assert words in failure(server + path)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/x.png", "http://[bad/x", "http://", "ftp://host/x.png", "http://a b/x"]
)
def test_url_that_cannot_be(url: str) -> None:
    failure(url)


def test_url_size_limit(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 1024)
    assert "larger than" in failure(server + "/picture.png")


def test_url_time_limit(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "URL_SECONDS", -1.0)
    assert "no answer within" in failure(server + "/picture.png")


@pytest.mark.parametrize(
    "target",
    [
        "ftp://127.0.0.1:9/x.png",
        "file:///etc/hostname",
        "data:image/png;base64,AAAA",
        "gopher://127.0.0.1/",
        "FTP://h/x",
    ],
)
def test_redirects_lead_to_http_only(server: str, target: str) -> None:
    assert "only http and https URLs are read" in failure(f"{server}/to?{target}")


def test_redirects_that_lead_nowhere_end(server: str) -> None:
    assert "infinite loop" in failure(server + "/loop")
    assert "user name or password" in failure(f"{server}/to?http://me:secret@127.0.0.1:9/x.png")
    assert "***" in failure(f"{server}/to?http://me:secret@127.0.0.1:9/x.png")


def test_redirects_share_one_deadline(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "URL_SECONDS", 0.3)
    assert "no answer within 0.3 s" in failure(server + "/around")


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server that answers, one byte after the other, for as long as it is listened to.

    It sends what its path says: `/nothing`, `/headers` without an end, or the headers and a `/body` without an end.
    """
    server = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip() -> None:
        with server:
            while not over.is_set():
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    path = peer.recv(4096).split()[1]
                    sent = b"HTTP/1.1 200 OK\r\n"
                    if path == b"/body":
                        sent += b"Content-Type: image/png\r\n\r\n"
                    try:
                        while not over.wait(0.02):
                            if path != b"/nothing":
                                peer.sendall(sent)
                                sent = b"X: 1\r\n" if path == b"/headers" else b"."
                    except OSError:
                        gone.set()

    gone = threading.Event()
    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    over.set()
    server.close()
    thread.join(5)


@pytest.mark.parametrize("path", ["/nothing", "/headers", "/body"])
def test_one_deadline_while_bytes_drip(dripping: str, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(images, "URL_SECONDS", 0.25)
    before = threading.active_count()
    assert "no answer within 0.25 s" in failure(dripping + path)
    for thread in threading.enumerate():  # what hung on the server was let go
        if thread.name == "hired-download":
            thread.join(5)
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:secret@host/x.png", "http://***@host/x.png"),
        ("http://secret@host", "http://***@host"),
        ("http://me:se@cret@host/x", "http://***@host/x"),
        ("http://me:sec/ret@host/x", "http://***@host/x"),
        ("ftp://me:secret@host/x", "ftp://***@host/x"),
        ("https://host:80/@me/x", "https://host:80/@me/x"),
        ("https://[::1]:80/@me", "https://[::1]:80/@me"),
        ("a@b.png", "a@b.png"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
    if "***" in shown:
        message = failure(url)
        assert "cret" not in message
        assert "***" in message


def test_private_addresses_are_read(server: str) -> None:
    assert images.load(server.replace("127.0.0.1", "localhost") + "/picture.png").size == (64, 48)
