"""What a server says of itself, with an application in the place of vLLM's."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from hired.serving import announce
from hired.vllm.metrics import LOG, REQUEST_LOG, Totals, count, totals


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What our loggers write; they are as before afterwards."""
    said: list[str] = []
    handler, ours, level = logging.Handler(), logging.getLogger(LOG), logging.getLogger(REQUEST_LOG).level
    monkeypatch.setattr(handler, "emit", lambda record: said.append(record.getMessage()))
    monkeypatch.setattr(ours, "handlers", [handler])
    monkeypatch.setattr(ours, "level", logging.INFO)
    logging.getLogger(REQUEST_LOG).manager._clear_cache()  # type: ignore[attr-defined]
    yield said
    logging.getLogger(REQUEST_LOG).setLevel(level)


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.001)


def serve(monkeypatch: pytest.MonkeyPatch, app: Any, enable_log_requests: bool = False) -> None:
    """A server that starts, does what `app` does, and stops; it tells every 10 ms."""
    monkeypatch.setattr(announce, "fitting", lambda config: [f"fits {config}"])
    monkeypatch.setattr(announce.tell, "__defaults__", (0.01,))
    state = SimpleNamespace(
        args=SimpleNamespace(enable_log_requests=enable_log_requests), engine_client=SimpleNamespace(vllm_config="all")
    )
    scope = {"type": "lifespan", "app": SimpleNamespace(state=state)}
    asyncio.run(asyncio.wait_for(announce.Announce(app)(scope, None, None), 30))  # type: ignore[arg-type]


def test_what_was_kept_is_told_as_it_goes(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    begun = totals()

    async def app(*_: Any) -> None:
        await until(lambda: len(lines) == 1)
        await asyncio.sleep(0.05)  # nothing to tell, nothing told
        count(100, 20)
        count(300, 60)
        await until(lambda: len(lines) == 2)
        await asyncio.sleep(0.05)
        count(1000, 125)
        await until(lambda: len(lines) == 3)

    serve(monkeypatch, app)
    assert lines == [
        "fits all",
        "HiRED: 2 requests with pictures in 0.01 s; kept 80 of 400 visual tokens (20.0 %)",
        "HiRED: 1 requests with pictures in 0.01 s; kept 125 of 1,000 visual tokens (12.5 %)",
    ]
    assert tuple(new - old for old, new in zip(begun, totals(), strict=True)) == (3, 1400, 205)


def test_numbers_are_of_the_time_between() -> None:
    line = announce.told(Totals(10, 1000, 500), Totals(1210, 893_800, 179_060), 60.0)
    assert line == "HiRED: 1,200 requests with pictures in 60 s; kept 178,560 of 892,800 visual tokens (20.0 %)"


@pytest.mark.parametrize("wanted", [False, True])
def test_requests_have_lines_of_their_own_where_asked_for(
    lines: list[str], monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    async def app(*_: Any) -> None:
        lines.clear()
        logging.getLogger(REQUEST_LOG).info("one request")

    serve(monkeypatch, app, wanted)
    assert lines == (["one request"] if wanted else [])


def test_requests_pass() -> None:
    passed: list[Any] = []

    async def app(*given: Any) -> None:
        passed.append(given)

    asyncio.run(announce.Announce(app)({"type": "http"}, 1, 2))  # type: ignore[arg-type]
    assert passed == [({"type": "http"}, 1, 2)]
