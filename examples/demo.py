"""Asks the shipped model about 20 pictures that training never saw, at a 20 % budget. Run by `make demo`.

Prints question, answer, truth and visual tokens, and writes one of the pictures with what was kept of it to out/.
"""

import argparse
import itertools
import logging
import shlex
import shutil
import sys
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

import hired
from hired import forms
from hired.viz import draw


def read(model, processor, page: forms.Page, question: str, settings: dict) -> tuple[str, hired.ImageSelection]:
    """The answer, and what was kept of the picture."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=prompt, images=page.image, return_tensors="pt")
    reduced = hired.reduce(model, inputs, **settings)
    output = model.generate(**reduced, max_new_tokens=8, do_sample=False)
    answer = processor.decode(output[0, reduced["input_ids"].shape[1] :], skip_special_tokens=True)
    return answer.strip(), reduced.selection[0]


def pages(count: int) -> list[tuple[forms.Page, forms.Question]]:
    """Pages of the seeds kept for demonstrations, of one task after the other, and a question about each."""
    tasks = ("forms", "mixed", "layout", "shapes", "large")
    drawn = (forms.page(seed, task=tasks[index % len(tasks)]) for index, seed in enumerate(forms.DEMO_SEEDS))
    found = ((page, page.questions[page.seed % len(page.questions)]) for page in drawn if page.questions)
    return list(itertools.islice(found, count))


def hired_command() -> list[str]:
    """What starts the command line of this environment, whether or not it is on PATH."""
    script = Path(sys.executable).with_name("hired")
    if not script.exists():
        return [sys.executable, "-m", "hired.cli"]
    if shutil.which("hired") == str(script):
        return ["hired"]
    return [str(script.relative_to(Path.cwd())) if script.is_relative_to(Path.cwd()) else str(script)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=0.2)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--newlines", choices=("drop", "keep"), default="drop")
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("out"))
    args = parser.parse_args()
    settings = {"budget": args.budget, "alpha": args.alpha, "newlines": args.newlines}

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    console = Console()
    with console.status("Loading the shipped model"):
        model, processor = hired.load_tiny()

    table = Table("question", "answer", "truth", "", "picture", "visual tokens")
    hits, before, after = 0, 0, 0
    shown: tuple[bool, int, forms.Page, str, str, hired.ImageSelection] | None = None
    with torch.inference_mode():
        for page, (question, truth, _) in track(pages(args.pictures), "Reading", console=console, transient=True):
            answer, chosen = read(model, processor, page, question, settings)
            hit = answer == truth
            hits += hit
            before += chosen.tokens_full
            after += chosen.tokens_kept
            tokens = f"{chosen.tokens_full} -> {chosen.tokens_kept}"
            size = f"{page.image.width} x {page.image.height}"
            mark = "[green]hit[/]" if hit else "[red]miss[/]"
            table.add_row(question, escape(answer), truth, mark, size, tokens)
            # The view is of a page that was read right, cut into a grid of 2 x 2 where there is one.
            rank = (hit, min(chosen.grid))
            if shown is None or rank > shown[:2]:
                shown = (*rank, page, question, answer, chosen)
    console.print(table)
    share = 100 * after / max(before, 1)
    console.print(f"{hits} of {table.row_count} right, {before:,} -> {after:,} visual tokens ({share:.0f} % of all)")

    if shown is not None:
        _, _, page, question, answer, chosen = shown
        args.out.mkdir(parents=True, exist_ok=True)
        picture, view = args.out / "demo-page.png", args.out / "demo-view.png"
        page.image.save(picture)
        draw(page.image, chosen, note=f"{question}  {answer}").save(view)
        console.print(f"Wrote {picture} and {view}. Ask it yourself:", soft_wrap=True)
        command = shlex.join([*hired_command(), "ask", str(picture), question])
        console.print(f"  {command}", soft_wrap=True, markup=False, highlight=False)


if __name__ == "__main__":
    main()
