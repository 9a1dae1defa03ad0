"""Processes of their own, for what may end the process: forked from one that has imported everything."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.gguf.children", "hired.gguf.llm", "gguf", "llama_cpp"])

Told = tuple[str, str] | None


def _child(work: Callable[..., None], arguments: tuple[Any, ...], sender: Any) -> None:
    import torch

    torch.set_num_threads(1)
    told: Told = None
    try:
        work(*arguments)
    except Exception as error:
        told = (type(error).__name__, str(error))
    sender.send(told)


def outcome(work: Callable[..., None], *arguments: Any, seconds: float = 120) -> Told:
    """(name, message) of what is raised there, None for nothing. Fails where the process does not end by itself."""
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    child = _CONTEXT.Process(target=_child, args=(work, arguments, sender))
    child.start()
    sender.close()
    try:
        told = receiver.recv() if receiver.poll(seconds) else ("timeout", "")
    except EOFError:
        told = ("died", "")
    child.join(seconds if told != ("timeout", "") else 0)
    if child.is_alive():
        child.kill()
        child.join()
    assert child.exitcode == 0, (told, child.exitcode)
    return told


def load(path: Path) -> None:
    """Makes an LLM of a file."""
    from hired import gguf

    gguf.LLM(path, threads=1).close()
