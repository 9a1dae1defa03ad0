"""Stage 2: teach the projector and the language model to answer, the tower frozen.

Every value of a page is asked in one conversation; the loss counts answer tokens only. The curriculum
goes from one line on one or two tiles to everything (`training.sequences.sample`). Layouts, picture
sizes, text before the picture and gaps in the positions vary, so that what is learned is to look up
content, not fixed distances. No visual token is ever left out here.

    python -m training.llm --minutes 60
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm
from transformers import GenerationConfig

from hired.forms import COLOURS
from training.answer import answer, grounding, naming
from training.attention import PLAIN
from training.encoder import RUNS, SHIPPED, optimizers, rate
from training.recipes import RECIPES, Recipe
from training.recipes.base import load_matching
from training.sequences import KINDS, Writer, batches


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Batches of sequences, drawn in a worker process."""

    def __init__(self, seed: int, tokens: int, stage: object, recipe: Recipe) -> None:
        self.seed, self.tokens, self.stage, self.recipe = seed, tokens, stage, recipe

    def __iter__(self):  # type: ignore[no-untyped-def]
        torch.set_num_threads(1)
        for batch in batches(self.seed, Writer(self.recipe), self.tokens, self.stage):
            yield {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in batch.items()}


def fresh(encoder: Path, recipe: Recipe) -> Any:
    """An untrained model with the trained tower of stage 1."""
    model = recipe.model._from_config(recipe.config(recipe.tokenizer()), attn_implementation="sdpa")
    for name, p in model.named_parameters():
        if name.endswith("image_newline"):
            nn.init.normal_(p, std=0.02)
    load_matching(model.model.vision_tower, torch.load(encoder)["tower"])
    model.model.vision_tower.set_attn_implementation(PLAIN)
    return model


def save(model: Any, recipe: Recipe, folder: Path) -> None:
    """Write the model in bfloat16, and its processor, as anyone would load them."""
    with torch.no_grad():
        small = recipe.model._from_config(model.config, dtype=torch.bfloat16)
        small.load_state_dict(model.state_dict())
    tok = recipe.tokenizer()
    small.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=16,
        pad_token_id=tok.pad_token_id,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
    )
    small.save_pretrained(folder)
    recipe.processor().save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(RECIPES), default="llava-next")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--tokens", type=int, default=12_000)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--drop", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--adamw", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--float32", action="store_true", help="for CPUs without instructions for bfloat16")
    parser.add_argument("--start", help=f"begin from this run's model, past the curriculum, or {SHIPPED}")
    parser.add_argument("--encoder", default="encoder")
    parser.add_argument("--name", default="llm")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    checkpoint, log = RUNS / f"{args.name}.pt", RUNS / f"{args.name}.jsonl"
    recipe = RECIPES[args.model]
    model = fresh(RUNS / f"{args.encoder}.pt", recipe)
    tower = model.model.vision_tower.requires_grad_(False)
    opts = optimizers([model], args.lr, not args.adamw)
    namer = nn.Linear(model.config.text_config.hidden_size, KINDS + len(COLOURS), bias=False)
    opts += optimizers([namer], args.lr, False)
    step, spent = 0, 0.0
    if args.start and not checkpoint.exists():
        if args.start == SHIPPED:
            recipe.begin(model)
        else:
            model.load_state_dict(torch.load(RUNS / f"{args.start}.pt")["model"])
    if checkpoint.exists():
        state = torch.load(checkpoint)
        namer.load_state_dict(state["namer"])
        model.load_state_dict(state["model"])
        for opt, s in zip(opts, state["opts"], strict=True):
            opt.load_state_dict(s)
        step, spent = state["step"], state["spent"]
    budget = args.minutes * 60
    stage = mp.Value("d", float(bool(args.start)) + spent / budget)
    stream = Stream(args.seed + step, args.tokens, stage, recipe)
    data = iter(DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=6))
    bar = tqdm(total=round(budget), initial=round(spent), unit="s", mininterval=5)
    mean: dict[str, float] = {}
    trained = [p for p in model.parameters() if p.requires_grad]
    while spent < budget:
        begun = time.time()
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = args.lr * rate(spent, budget)
        batch: dict[str, Tensor] = next(data)
        with torch.autocast("cpu", torch.bfloat16, enabled=not args.float32):
            with torch.no_grad():
                patches = recipe.features(tower, batch["pixels"])
            logits, weights, states = answer(model, batch, recipe.visual(model, patches), args.drop)
            logits = logits.float()
            named, seen = naming(namer, states, batch)
        target = batch["target"]
        answers = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        ground = grounding(weights, batch)
        loss = answers + 0.5 * ground + 1.0 * named + 1.0 * seen
        for opt in opts:
            opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        for opt in opts:
            opt.step()
        step += 1
        right = (logits.argmax(-1) == target)[target >= 0].float().mean()
        for name, value in (
            ("loss", float(answers.detach())),
            ("token_acc", float(right)),
            ("ground", float(ground.detach())),
            ("named", float(named.detach())),
            ("seen", float(seen.detach())),
            ("length", batch["ids"].shape[1]),
            ("rows", len(batch["ids"])),
            ("asked", float((target >= 0).sum())),
        ):
            mean[name] = 0.97 * mean.get(name, value) + 0.03 * value
        before = int(spent)
        spent += time.time() - begun
        stage.value = float(bool(args.start)) + spent / budget
        bar.update(int(spent) - before)
        if step % 25 == 0:
            row = {"step": step, "s": round(spent), **{k: round(v, 4) for k, v in mean.items()}}
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            bar.set_postfix(step=step, loss=row["loss"], acc=row["token_acc"])
        if step % 100 == 0 or spent >= budget:
            state = {
                "model": model.state_dict(),
                "namer": namer.state_dict(),
                "opts": [o.state_dict() for o in opts],
                "args": vars(args),
                "step": step,
                "spent": spent,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)
            save(model, recipe, recipe.weights if spent >= budget else RUNS / args.name)


if __name__ == "__main__":
    main()
