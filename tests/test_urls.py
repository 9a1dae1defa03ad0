"""Pictures from URLs: redirects, one deadline for everything, and passwords that are not told. 127.0.0.1 only."""

import base64
import io
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hired import images
from hired.cli import main
from hired.download import without_password
from hired.errors import ImageError

SECRET = "hunter2"
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))


def png() -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG")
    return buffer.getvalue()


class Server:
    """Answers every connection with `answer(socket, request text)`, each in a thread; notes the requests.

    A connection that the other side ends is told by `ended`.
    """

    def __init__(self, answer: Callable[[socket.socket, str], None]) -> None:
        self.answer = answer
        self.requests: list[str] = []
        self.ended = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.host = f"127.0.0.1:{self.port}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.handle, args=(connection,), daemon=True).start()

    def handle(self, connection: socket.socket) -> None:
        with connection:
            try:
                asked = b""
                while b"\r\n\r\n" not in asked and not asked.startswith(b"\x16") and (more := connection.recv(4096)):
                    asked += more
                self.requests.append(asked.decode("latin-1"))
                self.answer(connection, self.requests[-1])
            except OSError:
                self.ended.set()

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers are asked themselves, whatever the machine's settings."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[socket.socket, str], None]], Server]]:
    servers: list[Server] = []

    def start(answer: Callable[[socket.socket, str], None]) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def picture(connection: socket.socket, _: str = "") -> None:
    data = png()
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)


def moved(target: str, code: int = 302) -> Callable[[socket.socket, str], None]:
    reply = f"HTTP/1.1 {code} Moved\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
    return lambda connection, _: connection.sendall(reply)


def failure(source: str) -> str:
    with pytest.raises(ImageError) as caught:
        images.load(source)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    for error in (caught.value, caught.value.__cause__):
        assert SECRET not in str(error)
    return message


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(serve, code: int) -> None:
    end = serve(picture)
    start = serve(moved(f"{end.url}/späte bilder/x%20.png?a=b|c#part", code))
    assert np.array_equal(np.asarray(images.load(start.url)), np.asarray(PICTURE))
    assert end.requests[0].startswith("GET /sp%C3%A4te%20bilder/x%20.png?a=b%7Cc HTTP/1.1\r\n")


def test_a_relative_redirect(serve) -> None:
    def answer(connection: socket.socket, request: str) -> None:
        if request.startswith("GET /old/a.png?x=1 "):
            moved("../new/b.png?y=2")(connection, request)
        elif request.startswith("GET /new/b.png?y=2 "):
            picture(connection)

    assert images.load(serve(answer).url + "/old/a.png?x=1").size == (32, 24)


@pytest.mark.parametrize(
    "target",
    [
        f"ftp://user:{SECRET}@127.0.0.1:9/x.png",
        f"FTP://user:{SECRET}@127.0.0.1:9/x.png",
        "file:///etc/hostname",
        "data:image/png;base64,AAAA",
        "gopher://127.0.0.1/x",
        "javascript:alert(1)",
    ],
)
@pytest.mark.parametrize("code", [301, 303, 307, 308])
def test_redirects_elsewhere_are_one_error(serve, target: str, code: int) -> None:
    message = failure(serve(moved(target, code)).url)
    assert "only http and https URLs are read" in message
    assert f"redirects to {target.partition(':')[0]}:" in message


def test_a_second_redirect_is_looked_at_too(serve) -> None:
    second = serve(moved("ftp://127.0.0.1:9/x.png"))
    assert "only http and https" in failure(serve(moved(second.url)).url)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("HTTP/1.1 302 Moved\r\n\r\n", "names no place"),
        ("HTTP/1.1 302 Moved\r\nLocation: http://[bad/\r\n\r\n", "not valid"),
        (f"HTTP/1.1 302 Moved\r\nLocation: http://user:{SECRET}/x@127.0.0.1/\r\n\r\n", "port"),
        (f"HTTP/1.1 302 Moved\r\nLocation: http://user:{SECRET}@/x\r\n\r\n", "no host"),
        (f"HTTP/1.1 302 Moved\r\nLocation: http://user:{SECRET}\u2100@x/\r\n\r\n", ""),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", "HTTP 304"),
        ("HTTP/1.1 404 Not \x1b[31mhere\r\n\r\n", "HTTP 404 Not ?[31mhere"),
        ("not http at all\r\n\r\n", ""),
        ("", ""),
    ],
)
def test_bad_answers(serve, reply: str, words: str) -> None:
    assert words in failure(serve(lambda connection, _: connection.sendall(reply.encode())).url)


def test_redirects_in_a_circle(serve) -> None:
    circle = serve(
        lambda connection, request: moved(f"http://{request.partition('Host: ')[2].split()[0]}/")(connection, request)
    )
    assert "redirects" in failure(circle.url)
    assert len(circle.requests) == 11


def drip(first: bytes, piece: bytes) -> Callable[[socket.socket, str], None]:
    """Sends a piece every few milliseconds until the other side goes away."""

    def answer(connection: socket.socket, _: str) -> None:
        connection.sendall(first)
        for _ in range(3000):
            connection.sendall(piece)
            time.sleep(0.01)
        raise AssertionError("nobody hung up")

    return answer


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"", b"H"),  # a status line
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),  # one header
        (b"HTTP/1.1 302 Moved\r\nX-Slow: ", b"x"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),  # the body
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x"),  # an extension of a chunk
    ],
)
def test_what_drips_ends_at_the_deadline(serve, monkeypatch, first: bytes, piece: bytes) -> None:
    monkeypatch.setattr(images, "URL_SECONDS", 0.3)
    server = serve(drip(first, piece))
    assert "not done within 0.3 s" in failure(server.url)
    assert server.ended.wait(10), "the connection was left open"


def test_silence_ends_at_the_deadline(serve, monkeypatch) -> None:
    monkeypatch.setattr(images, "URL_SECONDS", 0.3)
    hold = threading.Event()
    assert "not done within 0.3 s" in failure(serve(lambda connection, _: hold.wait(10)).url)
    hold.set()


def test_one_deadline_for_all_redirects(serve, monkeypatch) -> None:
    monkeypatch.setattr(images, "URL_SECONDS", 0.5)

    def answer(connection: socket.socket, request: str) -> None:
        time.sleep(0.2)  # eleven of these are far more than the deadline, each is less
        moved(request.split()[1] + "x")(connection, request)

    server = serve(answer)
    assert "not done within 0.5 s" in failure(server.url)
    assert len(server.requests) < 11


def test_a_slow_handshake_ends_at_the_deadline(serve, monkeypatch) -> None:
    monkeypatch.setattr(images, "URL_SECONDS", 0.3)
    # A TLS record of 16 KiB, which comes a byte at a time.
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def answer() -> None:
        connection, _ = listener.accept()
        try:
            drip(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb", b"\x03")(connection, "")
        except OSError:
            ended.set()

    threading.Thread(target=answer, daemon=True).start()
    assert "not done within 0.3 s" in failure(f"https://127.0.0.1:{listener.getsockname()[1]}/")
    assert ended.wait(10)
    listener.close()


def test_a_slow_name_ends_at_the_deadline(monkeypatch) -> None:
    monkeypatch.setattr(images, "URL_SECONDS", 0.2)
    hold = threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        hold.wait(10)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    assert "not done within 0.2 s" in failure("http://nowhere.invalid/x.png")
    hold.set()


def test_https_to_what_speaks_no_tls(serve) -> None:
    server = serve(picture)
    assert "cannot download https://" in failure(f"https://{server.host}/x.png")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="a certificate is made with openssl")
def test_https(tmp_path: Path, monkeypatch) -> None:
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *subject],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    class Safe(Server):
        def handle(self, connection: socket.socket) -> None:
            try:
                super().handle(context.wrap_socket(connection, server_side=True))
            except OSError:
                self.ended.set()

    server = Safe(picture)
    assert "CERTIFICATE_VERIFY_FAILED" in failure(f"https://{server.host}/x.png")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    assert images.load(f"https://me:{SECRET}@{server.host}/x.png").size == (32, 24)
    assert authorization(server.requests[-1]) == f"me:{SECRET}"
    server.answer = drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x")
    monkeypatch.setattr(images, "URL_SECONDS", 0.4)
    server.ended.clear()
    assert "not done within 0.4 s" in failure(f"https://{server.host}/x.png")
    assert server.ended.wait(10)
    server.close()


def test_a_proxy_of_the_environment_is_asked(serve, monkeypatch) -> None:
    proxy = serve(picture)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy.url)
    assert images.load(f"http://me:{SECRET}@pictures.invalid/x.png").size == (32, 24)
    assert proxy.requests[0].startswith("GET http://pictures.invalid/x.png HTTP/1.1\r\n")


def test_an_interruption_ends_the_connection(serve, monkeypatch) -> None:
    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        reached.wait(10)
        raise KeyboardInterrupt

    reached = threading.Event()

    def answer(connection: socket.socket, request: str) -> None:
        reached.set()
        drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x")(connection, request)

    server = serve(answer)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            images.load(server.url)
    assert server.ended.wait(10)


def authorization(request: str) -> str | None:
    for line in request.splitlines():
        if line.lower().startswith("authorization: basic "):
            return base64.b64decode(line.split()[-1]).decode()
    return None


def test_a_user_and_password_are_sent_to_their_host_only(serve) -> None:
    other = serve(picture)

    def answer(connection: socket.socket, request: str) -> None:
        target = "/second" if request.startswith("GET /first ") else f"{other.url}/third"
        moved(target)(connection, request)

    server = serve(answer)
    assert images.load(f"http://me%40home:{SECRET}%2F@{server.host}/first").size == (32, 24)
    assert [authorization(request) for request in server.requests] == [f"me@home:{SECRET}/"] * 2
    assert authorization(other.requests[0]) is None
    assert SECRET not in "".join(request.split("\r\n")[0] for request in server.requests)


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@HOST/x.png",
        f"http://{SECRET}@HOST/x.png",
        f"http://user:{SECRET}@HOST:notaport/x.png",
        f"http://user:{SECRET}@HOST:99999/x.png",
        f"http://user:{SECRET}/slash@HOST/x.png",
        f"http://user:{SECRET}?mark@HOST/x.png",
        f"http://user:{SECRET}#mark@HOST/x.png",
        f"http://user:pass@{SECRET}@HOST/x.png",
        f"http://user:{SECRET}@[bad/x.png",
        f"http://user:{SECRET}@/x.png",
        f"http://user:{SECRET}\u2100@HOST/x.png",
        f"http://user:{SECRET}@{'label' * 20}.invalid/x.png",
        f"http://user:{SECRET}@a b/x.png",
        f"http://user:{SECRET}@HOST/" + "long" * 100,
        f"HTTP://user:{SECRET}@HOST/x.png",
        f"ftp://user:{SECRET}@HOST/x.png",
        f"s3://user:{SECRET}@HOST/x.png",
    ],
)
def test_a_password_is_never_told(serve, capsys: pytest.CaptureFixture[str], url: str) -> None:
    server = serve(lambda connection, _: connection.sendall(b"HTTP/1.1 401 Unauthorized\r\n\r\n"))
    url = url.replace("HOST:", "127.0.0.1:").replace("HOST", server.host)
    failure(url)
    assert main(["ask", url, "What?"]) == 2
    captured = capsys.readouterr()
    assert SECRET not in captured.out + captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://host/@me/a@2x.png", "http://host/@me/a@2x.png"),
        ("http://host:8080/a@2x.png", "http://host:8080/a@2x.png"),
        ("http://[::1]:80/a@2x.png", "http://[::1]:80/a@2x.png"),
        ("http://u:p@host/a@2x.png", "http://***@host/a@2x.png"),
        ("http://u@host?a@b", "http://***@host?a@b"),
        ("http://u:p/q@host/a", "http://***@host/a"),
        ("me@home/a.png", "me@home/a.png"),
    ],
)
def test_what_is_shown_of_a_url(text: str, shown: str) -> None:
    assert without_password(text) == shown


def test_tls_is_checked(serve, monkeypatch) -> None:
    """The default context is what connections are made with: certificates are checked."""
    made: list[ssl.SSLContext] = []
    original = ssl._create_default_https_context

    def noted(*args: object, **options: object) -> ssl.SSLContext:
        made.append(original(*args, **options))
        return made[-1]

    monkeypatch.setattr(ssl, "_create_default_https_context", noted)
    failure(f"https://{serve(picture).host}/")
    assert made
    assert all(context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED for context in made)
