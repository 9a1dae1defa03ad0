"""``hired check``: does HiRED work on a checkpoint?"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hired import files
from hired.cli import output, waiting
from hired.errors import HiredError, UnsupportedModelError
from hired.machine import versions

if TYPE_CHECKING:
    from hired.checking.lines import Line

__all__ = ["run"]

_ATTENTION = "Attention of the layer that picks, on pages of print, beside the small models here"
_BESIDE = ("tokenizers", "torchvision", "accelerate", "bitsandbytes", "peft")
"""What else a bug may lie in, where it is installed."""


def run(
    model: str,
    device: str,
    dtype: str,
    load: str | None,
    trust_remote_code: bool,
    out: Sequence[Path],
    as_json: bool,
) -> bool:
    """Check, print a line for each step or one JSON object, and write the files asked for.

    Returns:
        Whether no line failed.

    Raises:
        HiredError: The model cannot be had at all, or a file cannot be written.
    """
    for path in out:
        if path.suffix.lower() != ".json":
            raise HiredError(f"cannot write {files.one_line(path)}: name a .json file")
        files.check_writable(path)
    from hired.checking.lines import FAILED, Line
    from hired.checking.peaked import small_models
    from hired.checking.run import Result, check

    machine: dict[str, Any] = {}
    try:
        loaded = waiting.load(model, device, dtype, trust_remote_code, load)
    except UnsupportedModelError as error:  # which is an answer
        result = Result([Line("family", FAILED, str(error))], {}, None)
    else:
        from hired.machine import machine as described

        machine = described(loaded.model)
        with _telling() as tell:
            result = check(loaded.model, loaded.processor, tell)
    told = {
        "model": model,
        "load": load,
        "works": result.works,
        "lines": [asdict(each) for each in result.lines],
        "facts": result.facts,
        "peaked": result.peaked,
        "small_models": {name: asdict(each) for name, each in small_models().items()},
        "versions": _versions(),
        "machine": machine,
    }
    output.deliver(
        lambda: print(json.dumps(told)) if as_json else _print(told, result.lines),
        *(partial(files.write_json, path, told) for path in out),
    )
    return result.works


def _versions() -> dict[str, str]:
    found = versions()
    for name in _BESIDE:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _print(told: dict[str, Any], lines: Sequence[Line]) -> None:
    """The lines, green and red on a terminal, and what a report of a bug needs beside them."""
    quantised = "" if told["load"] is None else f" in {told['load']}"
    title = f"{told['model']}{quantised}: {'HiRED works' if told['works'] else 'HiRED does NOT work'}"
    rows = [(each.state, each.name, each.says) for each in lines]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(title), box=None, show_header=False, title_justify="left", padding=(0, 2, 0, 0))
        for state, name, says in rows:
            style = {"ok": "green", "failed": "bold red"}.get(state, "")
            table.add_row(Text(state, style), Text(name), Text(says, style if state == "failed" else ""))
        Console().print(table)
    else:
        output.table(("state", "step", "found"), rows, title)
    if told["peaked"] is not None:
        print()
        models = {"this model": told["peaked"], **told["small_models"]}
        cells = [
            [name, *(f"{100 * each[key]:.1f} %" for key in ("mass", "ink", "blind"))] for name, each in models.items()
        ]
        output.table(("", "top fifth's share", "writing in it", "writing in all"), cells, _ATTENTION)
    print("\n" + ", ".join(f"{name} {version}" for name, version in told["versions"].items()))
    machine = told["machine"]
    if machine:
        memory = "" if machine["memory_gb"] is None else f", {machine['memory_gb']} GB"
        print(f"{machine['dtype']} on {machine['device']}; {machine['cpu']}{memory}; {machine['platform']}")


@contextlib.contextmanager
def _telling() -> Iterator[Callable[[str], None]]:
    """What is being checked, on standard error; nothing where that is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda name: None
        return
    from rich.console import Console

    with Console(stderr=True).status("Checking") as status:
        yield lambda name: status.update(f"Checking: {name}")
