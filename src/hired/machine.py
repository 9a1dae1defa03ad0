"""What the numbers were measured on: machine, versions, memory."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hired._version import __version__

if TYPE_CHECKING:
    import torch

__all__ = ["LLAMA", "machine", "peak_memory_mb", "synchronize", "versions"]

LLAMA = ("llama-cpp-python", "gguf")
"""Packages that numbers depend on where llama.cpp runs the LLM, for `versions`."""


def machine(model: Any) -> dict[str, Any]:
    """Processor, cores, memory, GPU, threads, dtype and date."""
    import torch

    device = model.device
    return {
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "gpu_memory_gb": round(torch.cuda.get_device_properties(device).total_memory / 1e9, 1)
        if device.type == "cuda"
        else None,
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def versions(*more: str) -> dict[str, str]:
    """Versions of this library, Python and what the numbers depend on; of `more` packages too."""
    found = {"hired": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "pillow", *more):
        found[name] = metadata.version(name)
    return found


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given, so that clocks tell the truth."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory_mb(device: str) -> float | None:
    """Peak memory in MB (10^6 bytes): the GPUs' allocations on ``cuda``, else this process's resident set.

    None where the system does not tell (Windows).
    """
    if device == "cuda":
        import torch

        total = sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
        return round(total / 1e6, 1)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def _processor() -> str:
    """The processor's name, and which half-precision units it has, which is what bfloat16 speed hangs on."""
    known = Path("/proc/cpuinfo")
    if not known.exists():
        return platform.processor() or platform.machine()
    lines = (line.partition(":") for line in known.read_text().splitlines())
    facts = {name.strip(): value.strip() for name, _, value in lines}
    name = facts.get("model name", platform.machine())
    units = [unit for unit in ("avx512_bf16", "amx_bf16") if unit in facts.get("flags", "").split()]
    return f"{name} ({', '.join(units)})" if units else name


def _memory_gb() -> float | None:
    """Memory of the machine in GB (10^9 bytes), where the system tells."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
