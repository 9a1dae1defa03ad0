"""The commands that judge a checkpoint under budgets: their options; each one's work is in the module of its name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hired.cli.arguments import Alpha, Device, Dpi, Dtype, Json, Load, MaxNewTokens, Newlines, Trust, Variant
from hired.options import budgets as several
from hired.options import names

__all__ = ["check", "tune"]

Checkpoint = Annotated[
    str, typer.Argument(metavar="MODEL", help="tiny (comes with the package), a directory, or a hub id.")
]


def tune(
    model: Checkpoint,
    pictures: Annotated[
        list[str],
        typer.Argument(metavar="PICTURE...", help="Files, folders, URLs, or a .jsonl of {image, question, answer}."),
    ],
    questions: Annotated[
        list[str] | None, typer.Option("-q", "--question", metavar="TEXT", help="What to ask; may be repeated.")
    ] = None,
    questions_file: Annotated[
        Path | None, typer.Option("--questions", metavar="FILE", help="Questions, one a line.")
    ] = None,
    agree: Annotated[float, typer.Option("--agree", help="The agreement that is wanted, 0 to 1.")] = 0.95,
    measure: Annotated[
        str, typer.Option("--measure", metavar="exact|similar", help="Share of same answers, or mean similarity.")
    ] = "exact",
    budgets: Annotated[str, typer.Option("--budgets", help="Comma-separated budgets.")] = "0.6,0.4,0.2,0.1,0.05",
    methods: Annotated[str, typer.Option("--methods", help="Comma-separated names of methods.")] = "hired",
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Pictures at most.")] = 24,
    alpha: Alpha = 0.5,
    variant: Variant = "paper",
    newlines: Newlines = "drop",
    max_new_tokens: MaxNewTokens = 64,
    repeats: Annotated[int, typer.Option("--repeats", min=0, max=10_000, help="Timed runs; 0 for none.")] = 3,
    device: Device = "auto",
    dtype: Dtype = "auto",
    load: Load = None,
    trust_remote_code: Trust = False,
    dpi: Dpi = 144,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            "-o", "--out", metavar="OUT.json|OUT.png|OUT.html", help="Write results, plot or changed answers."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    from hired.agreeing import Settings
    from hired.cli.tune import Options, run

    settings = Settings(several(budgets), names(methods), max_new_tokens, alpha, variant, newlines, None, repeats)
    run(
        Options(
            model=model,
            pictures=tuple(pictures),
            questions=tuple(questions or ()),
            questions_file=questions_file,
            agree=agree,
            measure=measure,
            limit=limit,
            settings=settings,
            device=device,
            dtype=dtype,
            load=load,
            trust_remote_code=trust_remote_code,
            dpi=dpi,
            out=tuple(out or ()),
            as_json=as_json,
        )
    )


def check(
    model: Checkpoint,
    device: Device = "auto",
    dtype: Dtype = "auto",
    load: Load = None,
    trust_remote_code: Trust = False,
    out: Annotated[list[Path] | None, typer.Option("-o", "--out", metavar="OUT.json", help="Write the result.")] = None,
    as_json: Json = False,
) -> None:
    from hired.cli.check import run

    if not run(model, device, dtype, load, trust_remote_code, out or [], as_json):
        raise typer.Exit(1)
