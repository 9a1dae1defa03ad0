"""Requests per second, time to first token and KV cache use of `hired serve`, against stock vLLM.

    python benchmarks/serving.py --shape tiny -o benchmarks/serving-tiny-cpu.json

Each arm is a server of its own; the client of `vllm bench serve` sends all of them the same stream of requests. The
arms take turns, `--rounds` times, forth and back, so that what changes on the machine meanwhile meets all of them. What
the file holds already is kept, so that a long run can be made in pieces. CPU time is that of all processes of the
server while it serves the stream, the client's not among it. Run nothing beside it.
"""

import argparse
import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import psutil
import torch
from PIL import Image

from hired import files
from hired.costs.shapes import SHAPES, config_of, shape_config

STOCK = "stock"
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
QUESTION = "What is TOTAL?"


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers are stopped then too
    settings = arguments()
    files.check_writable(settings.out)
    made = described(settings)
    content = json.loads(settings.out.read_text()) if settings.out.exists() else {**made, "arms": []}
    if content["settings"] != made["settings"]:
        print(f"{settings.out} was made with other settings: remove it, or name another file", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="hired-serving-") as folder:
        checkpoint = save(settings, Path(folder) / "model")
        stream, warm = requests(settings, Path(folder))
        for turn, arm in turns(settings.arms.split(","), settings.rounds):
            if any((row["arm"], row.get("round", 0)) == (arm, turn) for row in content["arms"]):
                continue
            row = measure(arm, settings, checkpoint, stream, warm, Path(folder))
            content["arms"].append({**row, "round": turn})
            files.write_json(settings.out, content)
    return 0


def turns(arms: list[str], rounds: int) -> list[tuple[int, str]]:
    """(round, arm), every second round backwards."""
    return [(turn, arm) for turn in range(rounds) for arm in (reversed(arms) if turn % 2 else arms)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape", default="tiny", help="tiny (the shipped weights), a shape of hired bench, or a checkpoint"
    )
    parser.add_argument("--arms", default="stock,1,0.4,0.2", help="stock, or budgets of hired serve")
    parser.add_argument("--rounds", type=int, default=3, help="how often every arm is measured, in turns")
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=15)
    parser.add_argument("--image", default="1344x1344", help="size of every picture; all are different")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cpu", help="only written down: vLLM takes what it was built for")
    parser.add_argument("--max-model-len", type=int, default=4096)
    parser.add_argument("--kv-gb", type=int, default=2, help="room for the KV cache on a CPU")
    parser.add_argument("--serve", default="--block-size 32 --enforce-eager", help="more options for all servers")
    parser.add_argument("--start-s", type=int, default=600, help="longest that a server may take to start")
    parser.add_argument("-o", "--out", type=Path, required=True)
    return parser.parse_args()


def described(settings: argparse.Namespace) -> dict[str, Any]:
    """What a result file says beside its rows."""
    import vllm

    from hired.machine import machine, versions

    device = torch.device(settings.device)
    model = SimpleNamespace(device=device, dtype=getattr(torch, settings.dtype))
    kept = {key: value for key, value in vars(settings).items() if key not in ("arms", "out", "start_s", "rounds")}
    return {
        "subject": Path(settings.shape).name,
        "random_weights": settings.shape in SHAPES and settings.shape != "tiny",
        "settings": kept,
        "machine": machine(model),
        "versions": {**versions(), "vllm": vllm.__version__},
    }


def save(settings: argparse.Namespace, folder: Path) -> Path:
    """The model as a checkpoint for vLLM; shapes get the shipped model's tokenizer, which costs as little."""
    from hired.costs.randomly import random_model
    from hired.tiny import WEIGHTS
    from hired.vllm.checkpoints import export

    if settings.shape == "tiny":
        return export(WEIGHTS, folder)
    if settings.shape not in SHAPES:
        config_of(settings.shape)  # one line where it is none
        return Path(settings.shape)
    config = shape_config(settings.shape)
    config.image_token_index = 5  # the tokenizer's
    saved = folder.with_name("saved")
    random_model(config, torch.device("cpu"), getattr(torch, settings.dtype)).save_pretrained(
        saved, max_shard_size="1TB"
    )
    side = config.vision_config.image_size
    facts = json.loads((WEIGHTS / "processor_config.json").read_text())
    facts["patch_size"] = config.vision_config.patch_size
    facts["image_processor"] |= {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    pinpoints = getattr(config, "image_grid_pinpoints", None)
    if pinpoints:
        facts["image_processor"]["image_grid_pinpoints"] = pinpoints
    (saved / "processor_config.json").write_text(json.dumps(facts))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(WEIGHTS / name, saved / name)
    export(saved, folder)
    shutil.rmtree(saved)
    return folder


def requests(settings: argparse.Namespace, folder: Path) -> tuple[Path, list[str]]:
    """The stream, a file for the client's dataset `custom_image`; and two more pictures to warm a server up with."""
    size = tuple(int(number) for number in settings.image.split("x"))
    drawn = numpy.random.default_rng(0)

    def picture() -> str:
        data = io.BytesIO()
        noise = drawn.integers(0, 256, (24, 24, 3), dtype=numpy.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(data, "JPEG")
        return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()

    warm = [picture() for _ in range(2)]
    lines = [json.dumps({"prompt": QUESTION, "image_files": [picture()]}) for _ in range(settings.requests)]
    stream = folder / "requests.jsonl"
    stream.write_text("\n".join(lines))
    return stream, warm


def measure(
    arm: str, settings: argparse.Namespace, checkpoint: Path, stream: Path, warm: list[str], folder: Path
) -> dict[str, Any]:
    """One arm: starts its server, sends it the stream, stops it."""
    print(f"== {arm}", flush=True)
    begun = time.monotonic()
    with running(arm, settings, checkpoint, folder / f"{arm}.log") as (address, process):
        started = time.monotonic() - begun
        kept = [ask(address, url, settings.new_tokens) for url in warm]
        before = metrics(address)
        spent = cpu_s(process)
        with watching(address) as seen:
            result = client(address, settings, checkpoint, stream)
        spent = cpu_s(process) - spent
        after = metrics(address)
    errors = [error for error in result["errors"] if error]
    if errors or result["completed"] != settings.requests:
        raise SystemExit(f"{arm}: {result['completed']} of {settings.requests} requests answered: {errors[:1]}")
    cache = re.search(r'kv_cache_size_tokens="(\d+)"', after["text"])
    ttfts = sorted(result["ttfts"])
    return {
        "arm": arm,
        "budget": 1.0 if arm == STOCK else float(arm),
        "requests": result["completed"],
        "visual_tokens": kept[0],
        "prompt_tokens": statistics.median(result["input_lens"]),
        "duration_s": result["duration"],
        "requests_per_s": result["request_throughput"],
        "cpu_s_per_request": spent / result["completed"],
        "ttft_s": statistics.median(ttfts),
        "ttft_mean_s": statistics.mean(ttfts),
        "ttft_p99_s": float(numpy.quantile(ttfts, 0.99)),
        "ttft_first_s": ttfts[0],
        "ttft_last_s": ttfts[-1],
        "token_s": result["median_tpot_ms"] / 1000,
        "output_tokens_per_s": result["output_throughput"],
        "kv_peak": max((use for use, _ in seen), default=None),
        "kv_tokens": int(cache[1]) if cache else None,
        "running_peak": max((count for _, count in seen), default=None),
        "preemptions": after["vllm:num_preemptions_total"] - before["vllm:num_preemptions_total"],
        "start_s": started,
    }


@contextmanager
def running(arm: str, settings: argparse.Namespace, checkpoint: Path, log: Path) -> Iterator[tuple[str, int]]:
    """A server: its address, and the id of its first process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = ["--port", str(port), "--served-model-name", "model", "--enable-prompt-tokens-details"]
    common += ["--dtype", settings.dtype, "--max-model-len", str(settings.max_model_len), *settings.serve.split()]
    environment = {**os.environ, **QUIET, "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_gb)}
    if arm == STOCK:
        environment["VLLM_PLUGINS"] = "none"
        words = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint), *common]
    else:
        words = ["-m", "hired.cli", "serve", str(checkpoint), "--budget", arm, *common]
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as out:
        server = subprocess.Popen([sys.executable, *words], env=environment, stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + settings.start_s
            while not healthy(address):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{arm}: the server did not start:\n{log.read_text()[-4000:]}")
                time.sleep(0.5)
            yield address, server.pid
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()


def cpu_s(process: int) -> float:
    """Seconds of CPU time that a process and those it started have taken, in all."""
    first = psutil.Process(process)
    times = [each.cpu_times() for each in (first, *first.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def healthy(address: str) -> bool:
    try:
        urllib.request.urlopen(address + "/health", timeout=5).close()
    except OSError:
        return False
    return True


def ask(address: str, url: str, new_tokens: int) -> int:
    """Warms the server up with one request; returns its visual tokens."""
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    body = {"model": "model", "messages": [{"role": "user", "content": content}], "max_tokens": new_tokens, **greedy()}
    request = urllib.request.Request(
        address + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as response:
        usage = json.load(response)["usage"]
    return int(usage["prompt_tokens_details"]["multimodal_tokens"]["image"])


def greedy() -> dict[str, Any]:
    """Greedy, to the last token; of random weights, only tokens that the tokenizer knows."""
    return {"temperature": 0, "ignore_eos": True, "allowed_token_ids": list(range(10, 260))}


def metrics(address: str) -> dict[str, Any]:
    """Numbers of vLLM's `/metrics`, and its text."""
    with urllib.request.urlopen(address + "/metrics", timeout=30) as response:
        text = response.read().decode()
    found: dict[str, Any] = {"text": text}
    for name in ("vllm:kv_cache_usage_perc", "vllm:num_requests_running", "vllm:num_preemptions_total"):
        value = re.search(rf"^{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE)
        found[name] = float(value[1]) if value else 0.0
    return found


@contextmanager
def watching(address: str) -> Iterator[list[tuple[float, float]]]:
    """Collects KV cache use (0..1) and running requests while the block runs."""
    seen: list[tuple[float, float]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.25):
            now = metrics(address)
            seen.append((now["vllm:kv_cache_usage_perc"], now["vllm:num_requests_running"]))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def client(address: str, settings: argparse.Namespace, checkpoint: Path, stream: Path) -> dict[str, Any]:
    """What `vllm bench serve` measures."""
    from vllm.benchmarks.serve import add_cli_args
    from vllm.benchmarks.serve import main as bench
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    words = ["--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--base-url", address]
    words += ["--model", str(checkpoint), "--served-model-name", "model", "--disable-tqdm"]
    words += ["--dataset-name", "custom_image", "--dataset-path", str(stream), "--num-prompts", str(settings.requests)]
    words += ["--custom-output-len", str(settings.new_tokens), "--max-concurrency", str(settings.concurrency)]
    words += [
        "--ready-check-timeout-sec",
        "0",
        "--save-detailed",
        "--ignore-eos",
        "--extra-body",
        json.dumps(greedy()),
        "--seed",
        "0",
    ]
    result: dict[str, Any] = bench(parser.parse_args(words))
    return result


if __name__ == "__main__":
    sys.exit(main())
