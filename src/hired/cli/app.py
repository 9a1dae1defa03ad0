"""Commands and options; each command's work is in the module of its name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hired.cli import gguf
from hired.cli.arguments import (
    Alpha,
    Device,
    Dtype,
    Json,
    Load,
    MaxNewTokens,
    Method,
    Model,
    Trust,
)
from hired.cli.asking import ask, batch, view
from hired.cli.judging import check, tune
from hired.options import budgets as several
from hired.options import full_dtype, names, number

__all__ = ["app"]

app = typer.Typer(
    name="hired",
    help="HiRED: fewer visual tokens for high-resolution vision-language models, under a fixed budget.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from hired._version import __version__

        print(f"hired {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


app.command(help="Ask a question about pictures.")(ask)
app.command(help="Ask about many pictures, one answer a line of a file; goes on where it stopped.")(batch)
app.command(help="Draw which tokens of a picture are kept.")(view)
app.command(help="Find the smallest budget under which answers about your pictures stay what they are.")(tune)
app.command(help="Say whether HiRED works on a checkpoint.")(check)
app.add_typer(gguf.app, name="gguf")


@app.command(help="Serve a local page that shows answers, costs and kept tokens of your pictures, by budget.")
def page(
    model: Model = "tiny",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any that is free.")] = 7860,
    host: Annotated[
        str, typer.Option("--host", help="Another address than this machine's own lets others use the page.")
    ] = "127.0.0.1",
    max_new_tokens: MaxNewTokens = 64,
    device: Device = "auto",
    dtype: Dtype = "auto",
    load: Load = None,
    trust_remote_code: Trust = False,
) -> None:
    from hired.cli.page import run

    run(model, host, port, max_new_tokens, device, dtype, trust_remote_code, load)


@app.command(help="List the supported model families.")
def models() -> None:
    from hired.cli.models import run

    run()


@app.command(name="eval", help="Measure exact match beside tokens, for several methods and budgets.")
def evaluate(
    task: Annotated[str, typer.Option("--task", help="forms, dense, large, shapes, layout or mixed.")] = "forms",
    budgets: Annotated[str, typer.Option("--budgets", help="Comma-separated budgets.")] = "1,0.4,0.2,0.1",
    methods: Annotated[
        str, typer.Option("--methods", help="Comma-separated, or all; also the checks blank-half and no-newlines.")
    ] = "hired,uniform,random,overview,smaller",
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many pictures.")] = 1000,
    fonts: Annotated[str, typer.Option("--fonts", metavar="train|unseen")] = "train",
    newlines: Annotated[str, typer.Option("--newlines", metavar="drop|keep")] = "drop",
    positions: Annotated[
        str | None, typer.Option("--positions", metavar="consecutive|original", help="Default: the family's own.")
    ] = None,
    alpha: Alpha = 0.5,
    encoder_budget: Annotated[
        float | None, typer.Option("--encoder-budget", max=1e6, help="HiRED's encoder budget, such as 2.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, max=100_000, help="Pictures at a time.")] = 16,
    model: Model = "tiny",
    device: Device = "auto",
    dtype: Dtype = "auto",
    trust_remote_code: Trust = False,
    out: Annotated[
        list[Path] | None,
        typer.Option("-o", "--out", metavar="OUT.json|OUT.png", help="Write the table or the plot."),
    ] = None,
    as_json: Json = False,
) -> None:
    from hired.cli.eval import run
    from hired.evaluation.settings import Settings

    run(
        Settings(
            task=task,
            budgets=several(budgets),
            methods=names(methods),
            limit=limit,
            fonts=fonts,
            newlines=newlines,
            positions=positions,
            alpha=alpha,
            encoder_budget=encoder_budget,
            batch_size=batch_size,
        ),
        model=model,
        device=device,
        dtype=dtype,
        out=out or [],
        as_json=as_json,
        trust_remote_code=trust_remote_code,
    )


@app.command(help="Measure the paper's benchmarks through lmms-eval and print its table beside them; resumes.")
def reproduce(
    model: Annotated[
        str, typer.Option("--model", help="A hub id, a directory, or tiny.")
    ] = "llava-hf/llava-v1.6-vicuna-7b-hf",
    budgets: Annotated[str, typer.Option("--budgets", help="Comma-separated budgets.")] = "1,0.4,0.2",
    tasks: Annotated[
        str, typer.Option("--tasks", help="Comma-separated, by lmms-eval's names.")
    ] = "vqav2_val,scienceqa_img,textvqa_val,docvqa_val,ocrbench,mme,pope,chartqa",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Documents of every task, for a try.")] = None,
    method: Method = "hired",
    alpha: Alpha = 0.5,
    newlines: Annotated[str, typer.Option("--newlines", metavar="drop|keep")] = "drop",
    prompts: Annotated[
        str, typer.Option("--prompts", metavar="paper|chat", help="Prompts as in the paper, or the processor's.")
    ] = "paper",
    base: Annotated[str | None, typer.Option("--base", help="lmms-eval's model class, where it is not found.")] = None,
    include_path: Annotated[
        Path | None, typer.Option("--include-path", metavar="DIR", help="Definitions of other tasks.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    trust_remote_code: Trust = False,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Where results are kept, and found again.")
    ] = Path("hired-reproduce"),
    as_json: Json = False,
) -> None:
    from hired.cli.reproduce import run
    from hired.harness.settings import Settings

    run(
        Settings(
            model=model,
            budgets=several(budgets),
            tasks=names(tasks),
            limit=limit,
            method=method,
            alpha=alpha,
            newlines=newlines,
            prompts=prompts,
            base=base,
            device=device,
            dtype=dtype,
            include=None if include_path is None else str(include_path.resolve()),
            trust_remote_code=trust_remote_code,
        ),
        out,
        as_json,
    )


@app.command(help="Measure time to first token, tokens per second and memory, by budget.")
def bench(
    shape: Annotated[
        str | None,
        typer.Option(
            "--shape",
            metavar="NAME",
            help="Random weights: llava-next-7b, llava-next-0.5b (the default), llava-1.5-7b or tiny.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="A checkpoint in its place.")] = None,
    budgets: Annotated[str, typer.Option("--budgets", help="Comma-separated budgets.")] = "1,0.4,0.2,0.1",
    encoder_budget: Annotated[
        float | None, typer.Option("--encoder-budget", max=1e6, help="Also measure each budget with this, such as 2.")
    ] = None,
    batch: Annotated[str, typer.Option("--batch", help="Comma-separated batch sizes.")] = "1",
    image: Annotated[str, typer.Option("--image", metavar="WxH", help="Comma-separated picture sizes.")] = "1344x1344",
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Tokens every run generates.")] = 15,
    text_tokens: Annotated[int, typer.Option("--text-tokens", help="Tokens of the prompt beside the picture.")] = 32,
    repeats: Annotated[int, typer.Option("--repeats", help="Timed runs of every arm.")] = 3,
    warmup: Annotated[int, typer.Option("--warmup", help="Untimed runs of every arm before those.")] = 1,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure peak memory and the KV cache.")] = True,
    gguf: Annotated[
        Path | None, typer.Option("--gguf", metavar="FILE", help="The LLM as a GGUF file, run by llama.cpp.")
    ] = None,
    gguf_type: Annotated[
        str | None,
        typer.Option("--gguf-type", metavar="TYPE", help="The same, random weights of the shape: q4_k_m, q8_0 ..."),
    ] = None,
    busy: Annotated[
        bool, typer.Option("--busy", help="Measure llama.cpp even where other programs use its cores.")
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    trust_remote_code: Trust = False,
    out: Annotated[
        list[Path] | None,
        typer.Option("-o", "--out", metavar="OUT.json|OUT.png", help="Write the rows or the plot."),
    ] = None,
    as_json: Json = False,
) -> None:
    from hired.bench.settings import Settings, parse_counts, parse_sizes
    from hired.cli.bench import run

    run(
        Settings(
            shape=shape,
            model=model,
            budgets=several(budgets),
            encoder_budget=encoder_budget,
            batches=parse_counts(batch),
            images=parse_sizes(image),
            new_tokens=new_tokens,
            text_tokens=text_tokens,
            repeats=repeats,
            warmup=warmup,
            memory=memory,
            gguf=None if gguf is None else str(gguf),
            gguf_type=gguf_type,
            busy=busy,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        ),
        out or [],
        as_json,
    )


@app.command(help="Say what a budget costs, and which one fits, before anything is loaded.")
def plan(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_OR_SHAPE",
            help="llava-next-7b, llava-next-0.5b, llava-1.5-7b, tiny, a directory, or a hub id.",
        ),
    ],
    image: Annotated[str, typer.Option("--image", metavar="WxH", help="Size of the pictures.")] = "1344x1344",
    images: Annotated[int, typer.Option("--images", min=1, max=10_000, help="Pictures in a prompt.")] = 1,
    batch: Annotated[int, typer.Option("--batch", help="Prompts at a time.")] = 1,
    context: Annotated[int, typer.Option("--context", help="Text tokens to leave room for.")] = 2048,
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Tokens to generate.")] = 256,
    budgets: Annotated[str, typer.Option("--budgets", help="Comma-separated budgets.")] = "1,0.4,0.2,0.1",
    encoder_budget: Annotated[
        float | None, typer.Option("--encoder-budget", max=1e6, help="Narrow the encoder too, such as 2; lossy.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            callback=full_dtype,
            help="auto, float32, bfloat16, float16 (fp32, bf16, fp16), int4, or a GGUF type: q4_k_m, q8_0 ...",
        ),
    ] = "auto",
    trust_remote_code: Trust = False,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="8GB", help="Find the largest budget that fits.")
    ] = None,
    ttft: Annotated[
        str | None, typer.Option("--ttft", metavar="2s", help="Find the largest budget with a first token by then.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine for two seconds and predict times.")
    ] = False,
    tflops: Annotated[
        float | None, typer.Option("--tflops", help="Of another machine, in place of --calibrate; with --bandwidth.")
    ] = None,
    bandwidth: Annotated[float | None, typer.Option("--bandwidth", help="GB/s of that machine's memory.")] = None,
    out: Annotated[list[Path] | None, typer.Option("-o", "--out", metavar="OUT.json", help="Write the result.")] = None,
    as_json: Json = False,
) -> None:
    from hired.cli.plan import Settings, run

    run(
        Settings(
            model=model,
            image=image,
            images=images,
            batch=batch,
            context=context,
            new_tokens=new_tokens,
            budgets=several(budgets),
            encoder_budget=encoder_budget,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            memory=memory,
            ttft=ttft,
            calibrate=calibrate,
            tflops=tflops,
            bandwidth=bandwidth,
            as_json=as_json,
        ),
        out or [],
    )


@app.command(
    help="Serve a model with vLLM under a budget; every other option is vllm serve's own.",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def serve(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="tiny, a directory or a hub id, then options of vLLM's, such as"
            " --trust-remote-code, which runs Python code that comes with the checkpoint: read it first.",
        ),
    ],
    budget: Annotated[
        str, typer.Option("--budget", metavar="NUMBER", help="Share of the visual tokens (0.2), or tokens (576).")
    ] = "0.2",
    alpha: Alpha = 0.5,
    method: Method = "hired",
    request_budgets: Annotated[
        bool,
        typer.Option(
            "--request-budgets", help="Let requests lower the budget. Opens vLLM's --trust-request-mm-kwargs."
        ),
    ] = False,
) -> None:
    from hired.cli.serve import run

    run(words, number(budget), alpha, request_budgets, method)
