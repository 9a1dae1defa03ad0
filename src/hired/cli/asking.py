"""The commands that read pictures: their options; each one's work is in the module of its name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hired.cli.arguments import (
    Alpha,
    BudgetText,
    Device,
    Dpi,
    Dtype,
    EncoderBudget,
    Json,
    Load,
    MaxNewTokens,
    Method,
    Model,
    Newlines,
    Picture,
    System,
    Trust,
    Variant,
)
from hired.options import number

__all__ = ["ask", "batch", "view"]


def ask(
    pictures: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE", help="Paths, - for standard input, or URLs; pages of a PDF as in a.pdf#2-4."),
    ],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    model: Model = "tiny",
    budget: BudgetText = "0.2",
    alpha: Alpha = 0.5,
    method: Method = "hired",
    variant: Variant = "paper",
    newlines: Newlines = "drop",
    encoder_budget: EncoderBudget = None,
    max_new_tokens: MaxNewTokens = 64,
    system: System = None,
    chat: Annotated[bool, typer.Option("--chat", help="Then answer the lines of standard input as well.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Answer with all tokens too, and show both answers and costs.")
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    load: Load = None,
    gguf: Annotated[
        Path | None,
        typer.Option("--gguf", metavar="FILE", help="The LLM from a GGUF file, run by llama.cpp (needs its extra)."),
    ] = None,
    trust_remote_code: Trust = False,
    dpi: Dpi = 144,
    view: Annotated[Path | None, typer.Option("--view", metavar="OUT.png", help="Also draw what was kept.")] = None,
    as_json: Json = False,
) -> None:
    from hired.cli.answering import How
    from hired.cli.ask import Settings, run

    how = How(number(budget), alpha, method, variant, newlines, encoder_budget, max_new_tokens, system)
    run(
        Settings(
            pictures=tuple(pictures),
            question=question,
            model=model,
            device=device,
            dtype=dtype,
            load=load,
            gguf=gguf,
            trust_remote_code=trust_remote_code,
            how=how,
            dpi=dpi,
            view=view,
            chat=chat,
            compare=compare,
            as_json=as_json,
        )
    )


def batch(
    pictures: Annotated[
        list[str], typer.Argument(metavar="PICTURE", help="Files, folders, URLs; pages of a PDF as in a.pdf#2-4.")
    ],
    questions: Annotated[
        list[str], typer.Option("-q", "--question", metavar="TEXT", help="What to ask of each; may be repeated.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT.jsonl", help="The file to write, or to go on with.")],
    model: Model = "tiny",
    budget: BudgetText = "0.2",
    alpha: Alpha = 0.5,
    method: Method = "hired",
    variant: Variant = "paper",
    newlines: Newlines = "drop",
    encoder_budget: EncoderBudget = None,
    max_new_tokens: MaxNewTokens = 64,
    system: System = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    load: Load = None,
    trust_remote_code: Trust = False,
    dpi: Dpi = 144,
) -> None:
    from hired.cli.answering import How
    from hired.cli.batch import Settings, run

    how = How(number(budget), alpha, method, variant, newlines, encoder_budget, max_new_tokens, system)
    settings = Settings(tuple(pictures), tuple(questions), out, model, device, dtype, load, trust_remote_code, how, dpi)
    if not run(settings):
        raise typer.Exit(1)


def view(
    image: Picture,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT.png", help="The picture to write.")],
    model: Model = "tiny",
    budget: BudgetText = "0.2",
    alpha: Alpha = 0.5,
    method: Method = "hired",
    variant: Variant = "paper",
    newlines: Newlines = "drop",
    encoder_budget: EncoderBudget = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    load: Load = None,
    trust_remote_code: Trust = False,
    dpi: Dpi = 144,
) -> None:
    from hired.cli.answering import How
    from hired.cli.view import run

    how = How(number(budget), alpha, method, variant, newlines, encoder_budget)
    run(image, out, how, model, device, dtype, trust_remote_code, load, dpi)
