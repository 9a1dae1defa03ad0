"""Peak memory of one arm: of the allocator on a GPU, of a fresh process on a CPU."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hired.bench.settings import Arm, Scene, Settings
from hired.errors import HiredError

__all__ = ["Memory", "fresh", "probe"]

KILLED = (-9, 137)
"""Exit codes of a process that the system killed, which it does to one that takes too much memory."""
LOADED, OUT = "loaded", "out of memory"


@dataclass(frozen=True)
class Memory:
    """What one arm needs. MB are 10^6 bytes.

    Attributes:
        loaded_mb: with the model loaded and nothing run; None where the system does not tell.
        peak_mb: at the highest; on a CPU all of the process's resident memory, Python and libraries included.
        kv_cache_bytes: of the KV cache after prefill, all rows.
    """

    loaded_mb: float | None
    peak_mb: float | None
    kv_cache_bytes: int


def probe(settings: Settings, subject: Any, scene: Scene, arm: Arm) -> Memory:
    """Runs an arm once in this process.

    On a CPU the peak is the process's own since it started, so it means something in a fresh process only.
    """
    import torch

    from hired.bench.measure import cache_bytes
    from hired.bench.subject import inputs_for, pictures

    cuda = subject.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        loaded: float | None = torch.cuda.memory_allocated() / 1e6
    else:
        loaded = _resident_mb("VmRSS")
    inputs = inputs_for(subject, pictures(scene), settings.text_tokens)
    kept = cache_bytes(subject, inputs, arm, settings.new_tokens)
    peak = torch.cuda.max_memory_allocated() / 1e6 if cuda else _resident_mb("VmHWM")
    return Memory(loaded, peak, kept)


def fresh(settings: Settings, scene: Scene, arm: Arm, threads: int) -> Memory | None:
    """Runs an arm once in a process of its own.

    Args:
        settings: of the bench.
        scene: picture and batch.
        arm: the arm.
        threads: of PyTorch.

    Returns:
        None where it ran out of memory.

    Raises:
        HiredError: the model itself does not fit, or the process failed in another way.
    """
    order = {"settings": asdict(settings), "scene": asdict(scene), "arm": asdict(arm), "threads": threads}
    code, out, err = _answer(json.dumps(order))
    lines = out.split("\n")
    if code in KILLED or OUT in lines:
        if LOADED not in lines:
            raise HiredError(f"{settings.subject} does not fit into memory: use a smaller model, or another --dtype")
        return None
    if code != 0:
        said = [line for line in err.splitlines() if line.strip()] or [f"exit code {code}"]
        raise HiredError(f"the process that measures memory failed: {said[-1].strip()}")
    return Memory(**json.loads(lines[-2]))


def _answer(order: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a fresh process, which ends when this one does, however it ends.

    Its standard input stays open for as long as it may run.
    """
    command = [sys.executable, "-m", "hired.bench.memory"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it was killed at once
                process.stdin.write(f"{order}\n".encode())
                process.stdin.flush()
            out = process.stdout.read()
            code = process.wait()
        finally:
            process.kill()  # does nothing to one that has ended
            process.wait()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        said.seek(0)
        return code, out.decode(errors="replace"), said.read().decode(errors="replace")


def _leave_with_parent() -> None:
    """End this process once nobody holds the other end of its standard input."""
    with contextlib.suppress(OSError):
        os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _resident_mb(name: str) -> float | None:
    """`VmRSS` or `VmHWM` of this process, where the system tells.

    `resource.getrusage` would do for the peak, but it counts what the parent used before this program was started.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024 / 1e6
    if name == "VmHWM":
        from hired.machine import peak_memory_mb

        return peak_memory_mb("cpu")
    return None


def _child() -> None:
    """The fresh process: what to do comes as a line on standard input, whose end is this process's."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()

    import torch

    from hired.bench.measure import attempt
    from hired.bench.subject import load

    given = order["settings"]
    settings = Settings(**{**given, "images": tuple(map(tuple, given["images"]))})
    scene = Scene(tuple(order["scene"]["image"]), order["scene"]["batch"])
    torch.set_num_threads(order["threads"])
    subject = attempt(lambda: load(settings))
    if subject is None:
        print(OUT)
        return
    print(LOADED, flush=True)
    found = attempt(lambda: probe(settings, subject, scene, Arm(**order["arm"])))
    print(OUT if found is None else json.dumps(asdict(found)))


if __name__ == "__main__":
    try:
        _child()
    except HiredError as error:
        sys.exit(str(error))
