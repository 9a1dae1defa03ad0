"""Two replicas of `hired serve` behind vLLM's router on this machine; one is killed while requests are on their way.

    pip install vllm-router                     # in an environment of its own, or named by --router
    python examples/scale_out.py --router vllm-router

It asks one replica about the pictures first, then the router with all replicas behind it, then the router again while
it kills a replica, and says how many answers came, whether they are those of the one replica, and how many requests had
to be sent twice. It ends with 1 where an answer is missing or another. All traffic stays on 127.0.0.1.
"""

import argparse
import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hired import forms

TRIES = 3


@dataclass
class Asked:
    """What came of a few requests.

    Attributes:
        answers: by request, None where no try was answered.
        again: requests that were sent more than once.
        errors: what the failed tries said.
    """

    answers: list[str | None]
    again: int = 0
    errors: list[str] = field(default_factory=list)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="tiny", help="as for hired serve")
    parser.add_argument("--budget", default="0.2")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--router", default="vllm-router", help="the router's command")
    parser.add_argument(
        "--serve", default="--dtype float32 --enforce-eager --block-size 32", help="options of replicas"
    )
    parser.add_argument("--start-s", type=int, default=600, help="longest that a replica may take to start")
    return parser.parse_args()


def main() -> int:
    settings = arguments()
    bodies = [body(index) for index in range(settings.requests)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hired-scale-out-")))
        environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")}
        ports = [free_port() for _ in range(settings.replicas)]
        replicas = []
        for port in ports:
            words = ["serve", settings.model, "--budget", settings.budget, "--host", "127.0.0.1", "--port", str(port)]
            command = [sys.executable, "-m", "hired.cli", *words, "--served-model-name", "model"]
            log = folder / f"{port}.log"
            replicas.append(stack.enter_context(running([*command, *settings.serve.split()], log, environment)))
        addresses = [f"http://127.0.0.1:{port}" for port in ports]
        for address, replica, port in zip(addresses, replicas, ports, strict=True):
            wait(address, replica, folder / f"{port}.log", settings.start_s)
        door = free_port()
        command = [settings.router, "--host", "127.0.0.1", "--port", str(door), "--policy", "round_robin"]
        command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
        command += ["--health-check-interval-secs", "2", "--worker-urls", *addresses]
        router = stack.enter_context(running(command, folder / "router.log", environment))
        front = f"http://127.0.0.1:{door}"
        wait(front, router, folder / "router.log", 60)

        alone = ask(addresses[0], bodies, settings.concurrency)
        before = [served(address) for address in addresses]
        together = ask(front, bodies, settings.concurrency)
        shares = [served(address) - count for address, count in zip(addresses, before, strict=True)]
        third = settings.requests // 3

        def kill(answered: int) -> None:
            if answered == third:
                os.killpg(replicas[0].pid, signal.SIGKILL)
                replicas[0].wait(30)

        under = ask(front, bodies, settings.concurrency, kill)
        left = sum(replica.poll() is None for replica in replicas)
        after = ask(front, bodies[: settings.concurrency], settings.concurrency)
    said = {
        "requests": settings.requests,
        "answered by one replica": count(alone),
        "answered through the router": count(together),
        "by each replica": shares,
        "same answers": together.answers == alone.answers,
        "a replica was killed after": third,
        "replicas left": left,
        "answered while it was killed": count(under),
        "sent more than once": under.again,
        "same answers as before": under.answers == alone.answers,
        "afterwards, answered at once": count(after) - after.again,
        "what failed tries said": sorted(set(under.errors)),
    }
    print(json.dumps(said, indent=2))
    whole = [None not in asked.answers for asked in (alone, together, under, after)]
    fine = (
        all(whole)
        and alone.answers == together.answers == under.answers
        and all(shares)
        and left == settings.replicas - 1
    )
    return 0 if fine else 1


def body(index: int) -> bytes:
    """A request about a page of its own; the answer is greedy."""
    page = forms.page(forms.DEMO_SEEDS[0] + index)
    data = io.BytesIO()
    page.image.save(data, "PNG")
    url = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    question = page.question() if page.fields else "What is TOTAL?"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": "model", "messages": messages, "max_tokens": 8, "temperature": 0}).encode()


def ask(address: str, bodies: list[bytes], concurrency: int, hook: Callable[[int], None] = lambda _: None) -> Asked:
    """Sends requests, each up to `TRIES` times; `hook` is called with the number of answers after every one."""
    asked, lock, answered = Asked([None] * len(bodies)), threading.Lock(), 0

    def one(index: int) -> None:
        nonlocal answered
        for trial in range(TRIES):
            try:
                asked.answers[index] = post(address, bodies[index])
            except (OSError, KeyError, ValueError, http.client.HTTPException) as error:
                told = error.read().decode() if isinstance(error, urllib.error.HTTPError) else ""
                with lock:
                    asked.again += trial == 0
                    asked.errors.append(" ".join(f"{type(error).__name__} {error} {told}".split())[:300])
                time.sleep(1)
                continue
            with lock:
                answered += 1
                hook(answered)
            return

    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(one, range(len(bodies))))
    return asked


def post(address: str, content: bytes) -> str:
    request = urllib.request.Request(
        address + "/v1/chat/completions", content, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return str(json.load(response)["choices"][0]["message"]["content"])


def count(asked: Asked) -> int:
    return len(asked.answers) - asked.answers.count(None)


def served(address: str) -> int:
    """Requests with pictures that a replica has had."""
    with urllib.request.urlopen(address + "/metrics", timeout=30) as response:
        found = re.search(r"^hired:requests_total (\S+)$", response.read().decode(), re.MULTILINE)
    return int(float(found[1])) if found else 0


@contextmanager
def running(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """A process and those it starts, in a group of their own, until the block ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        yield process
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
                process.wait(30)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def wait(address: str, process: subprocess.Popen, log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address + "/health", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise SystemExit(f"{address} did not start:\n{log.read_text()[-3000:]}")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
