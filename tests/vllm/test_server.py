"""The real server, as `hired serve` starts it, and the official client."""

import base64
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

from hired.core.budget import Budget
from hired.costs.shapes import config_of, meta_model
from hired.costs.tokens import image_layouts, kept_tokens
from tests.vllm.support import Case, answer, pages

SERVER = 0.5
BUDGETS = (None, 0.4, 0.2, 0.1, 100)
OPTIONS = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--block-size", "32"]


@dataclass
class Served:
    """A running server: its client, and the file that its log goes to."""

    client: openai.OpenAI
    address: str
    log: Path

    def ask(self, picture: Any, question: str, **body: Any) -> Any:
        """Greedy answer to a question about a picture or the URL of one."""
        url = picture if isinstance(picture, str) else png(picture)
        content = [{"type": "image_url", "image_url": {"url": url}, **body.pop("part", {})}]
        return self.client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": [*content, {"type": "text", "text": question}]}],  # type: ignore[list-item]
            temperature=0,
            max_tokens=8,
            extra_body=body,
        )

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.address + path, timeout=10) as response:
            return str(response.read(), "utf-8")


def png(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def environment(**settings: str) -> dict[str, str]:
    """Of a server: engine and workers in processes of their own, as in production."""
    own = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",
        "VLLM_LOGGING_LEVEL": "INFO",
    }
    return {**os.environ, **own, **settings}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "hired.cli", "serve", *words, *OPTIONS]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(address + "/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the server did not start:\n" + log.read_text()[-4000:])


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests: the shipped model, half of its visual tokens, requests may lower that."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    words = [
        "tiny",
        "--budget",
        str(SERVER),
        "--request-budgets",
        "--enable-prompt-tokens-details",
        "--enable-log-requests",
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command(*words, "--port", str(port)), env=environment(), stdout=out, stderr=out)
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for(process, address, log)
            yield Served(openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=0), address, log)
            assert process.poll() is None, "the server died:\n" + log.read_text()[-4000:]
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def expected_tokens(picture: Image.Image, budget: float) -> int:
    """What the library keeps of a picture."""
    return kept_tokens(image_layouts(meta_model(config_of("tiny")), [picture.size])[0], Budget.parse(budget))


def works(served: Served) -> bool:
    [(picture, question)] = pages(1)
    return bool(served.ask(picture, question).choices[0].message.content)


def test_thirty_at_once_answer_as_one_by_one(served: Served, cases: dict[str, Case]) -> None:
    asked = [(*page, BUDGETS[i % len(BUDGETS)]) for i, page in enumerate(pages(30))]
    assert len({picture.size for picture, _, _ in asked}) > 5

    def ask(index: int, turn: str) -> tuple[str, int, int]:
        picture, question, budget = asked[index]
        body: dict[str, Any] = {} if budget is None else {"mm_processor_kwargs": {"hired_budget": budget}}
        # An id of its own in every turn: nothing comes out of a cache that an earlier turn filled.
        found = served.ask(picture, question, part={"uuid": f"{turn}-{index}"}, **body)
        usage = found.usage.model_dump()
        return (
            found.choices[0].message.content,
            usage["prompt_tokens"],
            usage["prompt_tokens_details"]["multimodal_tokens"]["image"],
        )

    with ThreadPoolExecutor(30) as pool:
        together = list(pool.map(lambda index: ask(index, "together"), range(30)))
    assert together == [ask(index, "alone") for index in range(30)]
    for (picture, question, budget), (text, _, tokens) in zip(asked, together, strict=True):
        assert tokens == expected_tokens(picture, budget or SERVER)
        new, _ = answer(cases["tiny"], [picture], question, budget or SERVER)
        assert text == cases["tiny"].processor.decode(new, skip_special_tokens=True)
    assert len({text for text, _, _ in together}) > 20  # it reads the pictures


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hired_budget": 0.6}, "hired_budget 0.6 is above the server's budget 0.5"),
        ({"hired_budget": 0}, "hired_budget: budget must be above 0"),
        ({"hired_budget": 1.5}, "neither a share"),
        ({"hired_budget": "a fifth"}, "must be a number"),
        ({"hired_budget": 0.0001}, "leaves no token"),
        ({"hired_alpha": 0.1}, "hired_alpha"),
    ],
)
def test_invalid_budgets_are_bad_requests(served: Served, kwargs: dict[str, Any], message: str) -> None:
    [(picture, question)] = pages(1)
    with pytest.raises(openai.BadRequestError) as caught:
        served.ask(picture, question, mm_processor_kwargs=kwargs)
    assert caught.value.status_code == 400
    assert message in caught.value.message
    assert works(served)


def test_broken_pictures_are_refused_and_the_server_lives_on(served: Served) -> None:
    [(picture, question)] = pages(1)
    whole = png(picture)
    head, data = whole.split(",")
    for broken in (whole[: len(head) + 1 + 2000], f"{head},{base64.b64encode(b'no picture').decode()}", f"{head},!!!"):
        assert len(broken) < len(whole)
        with pytest.raises(openai.APIStatusError) as caught:
            served.ask(broken, question)
        assert 400 <= caught.value.status_code < 500
    assert data
    assert works(served)


def test_a_broken_picture_among_good_ones_harms_nobody(served: Served) -> None:
    found = pages(8)
    alone = [served.ask(picture, question).choices[0].message.content for picture, question in found]

    def ask(index: int) -> Any:
        picture, question = found[index]
        if index % 4 == 3:
            with pytest.raises(openai.APIStatusError):
                served.ask("data:image/png;base64,AAAA", question)
            return alone[index]
        part = {"uuid": f"among-{index}"}
        return served.ask(picture, question, part=part).choices[0].message.content

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == alone


def counters(served: Served) -> tuple[int, int]:
    """Visual tokens before and kept, of all pictures so far, from `/metrics`."""
    text = served.get("/metrics")
    found = [re.search(rf"^hired:{name}_total (\S+)$", text, re.M) for name in ("visual_tokens", "kept_visual_tokens")]
    full, kept = (int(float(value[1])) for value in found if value is not None)
    return full, kept


def test_log_and_metrics_say_what_was_kept_and_what_fits(served: Served) -> None:
    [(picture, question)] = pages(1)
    [layout] = image_layouts(meta_model(config_of("tiny")), [picture.size])
    kept, (all_full, all_kept) = expected_tokens(picture, 0.2), counters(served)
    served.ask(picture, question, mm_processor_kwargs={"hired_budget": 0.2}, part={"uuid": "logged"})
    assert counters(served) == (all_full + layout.tokens_full, all_kept + kept)
    log = served.log.read_text()
    assert f"kept {kept} of {layout.tokens_full} visual tokens, images=1, budget=1/5" in log
    # Before it starts, what is kept; when the KV cache is there, how many requests fit it.
    assert re.search(r"^ *672x672 +744 +360 +1\.8 times$", log, re.MULTILINE)
    room = re.search(r"KV cache has room for ([\d,]+) tokens", log)
    line = re.search(r"672x672: +360 of +744 visual tokens; +([\d,]+) requests, ([\d,]+) unpruned", log)
    assert room is not None
    assert line is not None
    tokens, pruned, unpruned = (int(text.replace(",", "")) for text in (room[1], *line.groups()))
    # Blocks of 32 tokens: 360 + 128 take 16 of them, 744 + 128 take 28.
    assert (pruned, unpruned) == (tokens // 32 // 16, tokens // 32 // 28)


def test_without_the_plugin_it_does_not_start() -> None:
    done = subprocess.run(command("tiny"), env=environment(VLLM_PLUGINS="another"), capture_output=True, text=True)
    assert done.returncode == 2
    assert "VLLM_PLUGINS='another'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_without_the_plugin_does_not_serve(tmp_path: Path) -> None:
    # A node where the plugin is missing: this process has it, and the one that loads the model does not.
    (tmp_path / "forgetful.py").write_text(
        "from vllm.model_executor.models import ModelRegistry\n"
        "for name in [name for name in ModelRegistry.models if name.startswith('Hired')]:\n"
        "    del ModelRegistry.models[name]\n"
        "class Worker: pass\n"
    )
    words = ["tiny", "--port", str(free_port()), "--worker-extension-cls", "forgetful.Worker"]
    settings = environment(PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(command(*words), env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode not in (0, None)
    assert "['HiredLlavaNextForConditionalGeneration'] are not supported" in done.stdout + done.stderr
    assert "Starting vLLM server" not in done.stdout + done.stderr
