"""What the tests of the page share: the page of the shipped model, served by this process, and a browser."""

import importlib.util
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hired import forms, loading
from hired.page import server
from hired.page.reader import Reader
from hired.page.tabs import Tabs

SHOTS = Path("out/page")
"""Where screenshots go, to be looked at."""


_WATCH = """
import sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("WENT TO", event, arguments[1] if event != "socket.getaddrinfo" else arguments[0], file=sys.stderr)

sys.addaudithook(watch)
from hired.cli import main

sys.exit(main())
"""
WATCHED = [sys.executable, "-c", _WATCH]
"""The command, which tells on standard error every address that it looks up or connects to."""


def pytest_configure(config: pytest.Config) -> None:
    if importlib.util.find_spec("gradio"):  # deprecations inside it are not ours to mend
        config.addinivalue_line("filterwarnings", "default")


@dataclass
class Served:
    """A page that is served: its address, and what answers behind it."""

    address: str
    reader: Reader
    tabs: Tabs
    folder: Path


@pytest.fixture(scope="session")
def pages() -> list[forms.Page]:
    pytest.importorskip("matplotlib")
    return [forms.page(seed, task="dense") for seed in (20_000_000_004, 20_000_000_005)]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, pages: list[forms.Page]) -> Path:
    """A folder with both pages, a PDF of them, and what is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, page in zip("ab", pages, strict=True):
        page.image.save(folder / f"{name}.png")
    pages[0].image.save(folder / "ab.pdf", save_all=True, append_images=[pages[1].image], resolution=144)
    (folder / "bad.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    pytest.importorskip("gradio")
    import os

    from hired.page.asgi import Server

    reader = Reader(loading.load("tiny"))
    tabs = Tabs(reader)
    with server.own_folder(), server.listen("127.0.0.1", 0) as held:
        running = Server(server.application(reader, tabs))
        thread = threading.Thread(target=running.run, args=([held],))
        thread.start()
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        yield Served(address, reader, tabs, Path(os.environ["GRADIO_TEMP_DIR"]))
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium: the system's, or playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as driver:
        if found is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("needs chromium")
        running = driver.chromium.launch(executable_path=found)
        yield running
        running.close()


def waited(holds: Any, seconds: float = 20) -> bool:
    """Whether something comes to hold."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(holds())
