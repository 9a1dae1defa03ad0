"""``hired gguf``: GGUF files of language models."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from hired.cli.arguments import Json, Trust

__all__ = ["app"]

app = typer.Typer(help="GGUF files of language models, which llama.cpp runs.", no_args_is_help=True)


@app.callback()
def gguf() -> None:
    """Keeps `export` a command of its own, as the only one."""


@app.command(help="Write the language model of a checkpoint as a GGUF file, weight by weight.")
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="tiny (comes with the package), a directory, or a hub id.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.gguf", help="The file to write.")],
    type: Annotated[
        str, typer.Option("--type", help="Of the weights: f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m, q4_0 ...")
    ] = "f16",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    run(model, out, type, force, trust_remote_code, as_json)


def run(
    model: str,
    out: Path,
    type: str = "f16",
    force: bool = False,
    trust_remote_code: bool = False,
    as_json: bool = False,
) -> None:
    """Write the file, and say what it is.

    Args:
        model: What `hired.gguf.exporting.export_checkpoint` takes.
        out: The file.
        type: Of the weights.
        force: Replace a file that is there.
        trust_remote_code: Run code that comes with the checkpoint.
        as_json: Print one JSON object in place of a line.

    Raises:
        HiredError: What the file is made from or where it goes will not do; nothing is left behind.
    """
    from hired.cli import waiting
    from hired.gguf.exporting import export_checkpoint

    started = time.perf_counter()
    with waiting.share(f"Reading {model}") as progress:
        written = export_checkpoint(
            model, out, type, trust_remote_code=trust_remote_code, progress=progress, overwrite=force
        )
    seconds = time.perf_counter() - started
    if as_json:
        result = {
            "file": str(written.path),
            "bytes": written.size,
            "type": written.type,
            "architecture": written.architecture,
            "vocabulary": written.vocabulary,
            "why_no_vocabulary": written.why_not,
            "seconds": round(seconds, 3),
        }
        print(json.dumps(result))
        return
    words = "with vocabulary" if written.vocabulary else f"without vocabulary ({written.why_not})"
    size = f"{written.size / 1e9:.2f} GB" if written.size >= 1e8 else f"{written.size / 1e6:.1f} MB"
    print(f"{written.path}: {size}, {written.type}, {written.architecture}, {words}, {seconds:.1f} s")
