"""The real server with a model that sees pictures at their own resolution, and the official client."""

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

import hired
from tests.vllm.support import Case, noisy
from tests.vllm.test_server import command, environment, free_port, png, wait_for

NAME = "qwen3_vl"
SIZES = [(64, 64), (90, 31), (30, 80), (200, 150)]


@pytest.fixture(scope="module")
def client(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[openai.OpenAI, Path]]:
    """Half of the visual tokens; requests may lower that, and show less of a picture."""
    port, folder = free_port(), tmp_path_factory.mktemp("qwen-server")
    log, template = folder / "log", folder / "template.jinja"
    template.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    words = [str(cases[NAME].folder), "--served-model-name", NAME, "--budget", "0.5", "--request-budgets"]
    words += ["--chat-template", str(template), "--chat-template-content-format", "string", "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command(*words), env=environment(), stdout=out, stderr=out)
        try:
            wait_for(process, f"http://127.0.0.1:{port}", log)
            yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0), log
            assert process.poll() is None, "the server died:\n" + log.read_text()[-4000:]
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def ask(client: openai.OpenAI, pictures: list[Any], question: str, kind: str = "image_url", **kwargs: Any) -> list[int]:
    """The greedy answer, as tokens."""
    content: list[Any] = [{"type": kind, kind: {"url": png(picture)}} for picture in pictures]
    found = client.chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": [*content, {"type": "text", "text": question}]}],
        temperature=0,
        max_tokens=8,
        extra_body={"mm_processor_kwargs": kwargs, "return_token_ids": True},
    )
    tokens: list[int] = found.choices[0].token_ids  # type: ignore[attr-defined]
    return tokens


def expected(case: Case, pictures: list[Any], question: str, budget: float, **kwargs: Any) -> list[int]:
    """The library's answer, to the prompt that vLLM makes of such a request."""
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    text = "\n".join([*[mark] * len(pictures), question])
    inputs = case.processor(text=text, images=pictures, return_tensors="pt", add_special_tokens=False, **kwargs)
    reduced = hired.reduce(case.model, inputs, budget=budget)
    with torch.inference_mode():
        output = case.model.generate(**reduced, max_new_tokens=8, do_sample=False)
    tokens: list[int] = output[0, reduced["input_ids"].shape[1] :].tolist()
    return tokens


def test_answers_are_those_of_the_library(client: tuple[openai.OpenAI, Path], cases: dict[str, Case]) -> None:
    case, pictures = cases[NAME], noisy(SIZES)
    asked: list[tuple[list[Any], str, float]] = [([each], "what is a?", 0.5) for each in pictures]
    asked += [(pictures[:3], "b:", 0.5), (pictures[1:3], "b:", 0.2), ([pictures[0]], "what is a?", 0.2)]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda each: ask(client[0], *each[:2], hired_budget=each[2]), asked))
    assert found == [expected(case, *each) for each in asked]
    assert len(set(map(tuple, found))) > 4
    small = {"size": {"shortest_edge": 256, "longest_edge": 1600}}
    assert ask(client[0], pictures[3:], "b:", **small) == expected(case, pictures[3:], "b:", 0.5, images_kwargs=small)


def test_it_tells_what_it_keeps_and_refuses_videos(client: tuple[openai.OpenAI, Path]) -> None:
    told = client[1].read_text()
    assert "Qwen3VLForConditionalGeneration: keeps 0.5 of the visual tokens" in told
    assert "HiRED:   672x672:     32 of     64 visual tokens" in told
    with pytest.raises(openai.BadRequestError, match=r"At most 0 video"):
        ask(client[0], noisy([(16, 16)]), "b:", kind="video_url")
