"""How the page is served: what it answers, to whom, and what is left when it ends."""

import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.page.conftest import WATCHED, Served

pytest.importorskip("gradio")


def asked(address: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """(status, headers, body) of a page."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def test_the_page_names_no_other_address(served: Served) -> None:
    status, headers, body = asked(served.address)
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    for word in ("fonts.googleapis", "cdnjs", "huggingface.co", "google-analytics"):
        assert word not in body
    config = asked(f"{served.address}/config")[2]
    assert '"analytics_enabled":false' in config.replace(" ", "")


def test_no_other_name_reaches_it(served: Served) -> None:
    assert asked(served.address, Host="example.org")[0] == 400
    assert asked(served.address, Host="localhost")[0] == 200


def test_pages_of_other_sites_are_refused(served: Served) -> None:
    for origin in ("http://example.org", "null", served.address.replace("127.0.0.1", "localhost")):
        assert asked(served.address, Origin=origin)[0] == 403
    assert asked(served.address, Origin=served.address)[0] == 200


@pytest.mark.parametrize("path", ["/gradio_api/info", "/gradio_api/openapi.json"])
def test_nothing_is_offered_to_programs(served: Served, path: str) -> None:
    assert "/answer" not in asked(served.address + path)[2]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`hired page` as a command of its own, which tells where it goes."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "GRADIO_ANALYTICS_ENABLED": "True", "GRADIO_SHARE": "True"}
    command = [*WATCHED, "page", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        yield running
        running.kill()


def test_the_watch_sees_what_goes_out() -> None:
    done = subprocess.run(
        [*WATCHED, "ask", "http://127.0.0.1:9/x.png", "?"], capture_output=True, text=True, check=False
    )
    assert "WENT TO socket.connect ('127.0.0.1', 9)" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_it_goes_nowhere_and_leaves_nothing(
    process: subprocess.Popen[str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:")
    address = line.split()[0]
    assert asked(address)[0] == 200
    assert asked(f"{address}/config")[0] == 200
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == ""
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == []
    if number == signal.SIGINT:
        assert list(tmp_path.iterdir()) == []
