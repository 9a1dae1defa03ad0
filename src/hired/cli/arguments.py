"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from hired.options import full_dtype

__all__ = [
    "Alpha",
    "BudgetText",
    "Device",
    "Dpi",
    "Dtype",
    "EncoderBudget",
    "Json",
    "Load",
    "MaxNewTokens",
    "Method",
    "Model",
    "Newlines",
    "Picture",
    "System",
    "Trust",
    "Variant",
]

Picture = Annotated[
    str, typer.Argument(metavar="IMAGE", help="A path, - for standard input, or a URL; a page of a PDF as in a.pdf#2.")
]
Model = Annotated[str, typer.Option("--model", help="tiny (comes with the package), a directory, or a hub id.")]
BudgetText = Annotated[
    str,
    typer.Option("--budget", metavar="NUMBER", help="Share of the visual tokens (0.2), or tokens (576)."),
]
Alpha = Annotated[float, typer.Option("--alpha", help="The full image's share of the budget, 0 to 1.")]
Variant = Annotated[
    str, typer.Option("--variant", metavar="paper|published", help="The paper's algorithm or its code's.")
]
Method = Annotated[str, typer.Option("--method", metavar="NAME", help="How tokens are chosen: hired, scope ...")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps ...")]
Dtype = Annotated[
    str, typer.Option("--dtype", callback=full_dtype, help="auto, float32, bfloat16 or float16 (fp32, bf16, fp16).")
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run Python code that comes with the checkpoint. It can do all that you can: read it first.",
    ),
]
Newlines = Annotated[
    str, typer.Option("--newlines", metavar="drop|keep", help="The newlines of rows that keep a token.")
]
EncoderBudget = Annotated[
    float | None, typer.Option("--encoder-budget", max=1e6, help="Narrow the encoder too, such as 2; lossy.")
]
Load = Annotated[
    str | None, typer.Option("--load", metavar="4bit|8bit", help="Quantise the LLM's weights (needs bitsandbytes).")
]
Dpi = Annotated[float, typer.Option("--dpi", help="Pixels an inch that pages of PDFs are drawn with.")]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, max=1_000_000, help="Longest answer.")]
System = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="A system message.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
