"""Stage 1: teach the vision tower to read single partitions.

Heads that exist only here read, from the patch features the LLM will get (`hidden_states[-2]`): whether
text touches the patch, which line (key) it belongs to, and which digit of the value lies on it; which shape of
which colour; what lies beside it; where the patch is. Nothing is asked that a partition does not show: print too
small for it, or shapes mostly in the next tile, have no label. From the CLS token after every layer: which words,
shapes and colours the partition shows and how many of each digit; from the pooled last layer also the digits that
belong to each key. That makes the CLS mean something, as image-text training does for CLIP, and it is all the later
stages rely on.

    python -m training.encoder --minutes 25
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from hired.forms import COLOURS, SHAPES
from training.attention import PLAIN
from training.data import IGNORE, NAMES, SLOTS, WORDS, encoder_batches
from training.recipes import RECIPES, Recipe
from training.recipes.base import SIDE, normalise

RUNS = Path(__file__).resolve().parent / "runs"
"""Checkpoints and logs; not committed."""
SHIPPED = "shipped"
"""The name under which `--start` takes finished weights: for the model that ships, those of its first edition; for
the other one, the model that ships."""


class Heads(nn.Module):
    """The training-only read-outs of the tower: of its patches, and of each of its `summaries`."""

    PARTS = (1, len(WORDS), SLOTS * 11, 1 + len(SHAPES), 1 + len(COLOURS), 2 * SIDE, 4 * (1 + len(NAMES)))
    """Outputs a patch: text, its word, digits, shape, colour, row and column, what lies around."""

    def __init__(self, width: int, summaries: int) -> None:
        super().__init__()
        self.patch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(self.PARTS)))
        bag = len(WORDS) + 10 + len(SHAPES) + len(COLOURS)
        self.cls = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, bag)) for _ in range(summaries))
        self.read = nn.Linear(width, len(WORDS) * SLOTS * 11)


class Layout(nn.Module):
    """From the CLS token after each layer: how what is drawn looks, and where it lies.

    Looks are the mean and the deviation of the colours of the patches that text or a shape touches; the place is
    how much of it lies in each of 3 x 3 regions. The first layer is asked for the looks alone: asked for
    the place as well, it learns to attend to blank paper, which tells as much.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 15)) for _ in range(layers))

    def forward(self, summaries: list[Tensor], ink: Tensor, pixels: Tensor) -> Tensor:
        """Loss; the first layer weighs most, so that its attention is on what is drawn from the start.

        Args:
            summaries: (n, width) the CLS token after each layer.
            ink: (n, 144), 1.0 where text or a shape touches a patch.
            pixels: (n, 96, 96, 3) uint8.
        """
        place = F.avg_pool2d(ink.unflatten(1, (12, 12)), 4).flatten(1) * 4
        cells = pixels.float().div(255).view(-1, 12, 8, 12, 8, 3).transpose(2, 3).reshape(-1, 144, 64, 3)
        looks = torch.cat([cells.mean(2), cells.std(2)], -1)
        some = ink.sum(1, keepdim=True)
        looks = 8 * (looks * ink[..., None]).sum(1) / some.clamp(min=1)
        shown = (some > 0).float()
        each = []
        for i, (head, summary) in enumerate(zip(self.heads, summaries, strict=True)):
            told = head(summary).float()
            look = F.smooth_l1_loss(told[:, 9:], looks, beta=0.2, reduction="none") * shown
            where = F.smooth_l1_loss(told[:, :9], place, beta=0.2) if i else 0.0
            each.append(look.mean() + where)
        return 1.5 * each[0] + 0.5 * torch.stack(each[1:]).mean()


def mean_of(each: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean; nothing where nothing weighs."""
    return (each * weight).sum() / weight.sum().clamp(min=1)


def losses(
    out: Any, heads: Heads, layout: Layout | None, batch: dict[str, Tensor], recipe: Recipe
) -> dict[str, Tensor]:
    """All terms of stage 1, and accuracies, from what the tower made of a batch."""
    key = batch["key"].flatten(1)
    slots = batch["slots"].flatten(2).transpose(1, 2)
    kind, colour = batch["shape"].flatten(1), batch["colour"].flatten(1)
    beside = batch["beside"].flatten(2).transpose(1, 2)
    told = heads.patch(recipe.patches(out)).float()
    seen, which, digit, shape, hue, spot, near = told.split(heads.PARTS, -1)
    seen, digit = seen[..., 0], digit.unflatten(-1, (SLOTS, 11))
    text, legible = (key != -1).float(), (key >= 0).float()
    ink = ((key != -1) | (colour > 0)).float()
    *summaries, pooled = recipe.summaries(out)
    loss: dict[str, Tensor] = {}
    if layout is not None:
        loss["layout"] = layout(summaries, ink, batch["pixels"])
    loss["text"] = F.binary_cross_entropy_with_logits(seen, text, weight=0.5 + 2 * text, reduction="mean")
    each = F.cross_entropy(which.transpose(1, 2), key.clamp(min=0), reduction="none")
    loss["key"] = mean_of(each, legible)
    on = (slots > 0).float()
    heft = (slots != IGNORE).float() * (0.01 + (0.2 + on) * legible[..., None])
    each = F.cross_entropy(digit.flatten(0, 2), slots.clamp(min=0).flatten(), reduction="none")
    loss["digit"] = mean_of(each, heft.flatten())
    # Blank patches are many and easy, so they weigh little.
    each = F.cross_entropy(shape.transpose(1, 2), kind.clamp(min=0), reduction="none")
    loss["shape"] = mean_of(each, (kind != IGNORE).float() * (0.03 + (kind > 0).float()))
    each = F.cross_entropy(hue.transpose(1, 2), colour, reduction="none")
    loss["colour"] = mean_of(each, 0.03 + (colour > 0).float())
    grid = torch.arange(SIDE**2).expand(len(key), -1)
    row, column = spot.split(SIDE, -1)
    loss["spot"] = F.cross_entropy(row.flatten(0, 1), (grid // SIDE).flatten()) + F.cross_entropy(
        column.flatten(0, 1), (grid % SIDE).flatten()
    )
    near = near.unflatten(-1, (4, -1))
    each = F.cross_entropy(near.flatten(0, 2), beside.clamp(min=0).flatten(), reduction="none")
    loss["beside"] = mean_of(each, (beside != IGNORE).float().flatten())

    names = F.one_hot(key.clamp(min=-1) + 1, len(WORDS) + 1)[..., 1:].amax(1)
    kinds = F.one_hot(kind.clamp(min=0), len(SHAPES) + 1)[..., 1:].amax(1)
    hues = F.one_hot(colour, len(COLOURS) + 1)[..., 1:].amax(1)
    present = torch.cat([names, kinds, hues], 1).float()
    # One label per line and slot: the digit, from whichever patch shows it.
    lines = torch.zeros(len(key), len(WORDS), SLOTS, dtype=torch.long)
    b, p, s = ((slots > 0) & (key >= 0)[..., None]).nonzero(as_tuple=True)
    lines[b, key[b, p], s] = slots[b, p, s]
    counts = F.one_hot(lines, 11)[..., 1:].sum((1, 2)).float()
    for i, (head, summary) in enumerate(zip(heads.cls, summaries or [pooled], strict=True)):
        bag = head(summary).float()
        is_there = F.binary_cross_entropy_with_logits(bag[:, 10:], present, weight=1 + 6 * present)
        loss[f"cls{i}"] = is_there + F.smooth_l1_loss(bag[:, :10], counts)
    read = heads.read(pooled).float().view(len(key), len(WORDS), SLOTS, 11)
    each = F.cross_entropy(read.flatten(0, 2), lines.flatten(), reduction="none").view(lines.shape)
    mask = (lines > 0).any(-1, keepdim=True).float().expand_as(lines)
    loss["read"] = mean_of(each, mask)
    with torch.no_grad():
        for name, guess, truth, where in (
            ("digit", digit, slots, on * legible[..., None] > 0),
            ("key", which, key, legible > 0),
            ("shape", shape, kind, kind > 0),
            ("colour", hue, colour, colour > 0),
            ("beside", near, beside, beside > 0),
            ("read", read, lines, lines > 0),
        ):
            loss[f"acc_{name}"] = (guess.argmax(-1) == truth)[where].float().mean()
    return loss


def total(loss: dict[str, Tensor]) -> Tensor:
    """Weighted sum of the terms."""
    layers = [v for k, v in loss.items() if k.startswith("cls")]
    main = 0.5 * loss["text"] + 1.0 * loss["key"] + 2.0 * loss["digit"] + 0.3 * loss["read"]
    main = main + 0.7 * loss["shape"] + 0.4 * loss["colour"] + 0.3 * loss["beside"] + 0.1 * loss["spot"]
    return main + 2.0 * loss.get("layout", 0.0) + 0.5 * torch.stack(layers).mean()


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Batches of `encoder_batches`, drawn in a worker process."""

    def __init__(self, seed: int, size: int, recipe: Recipe) -> None:
        self.seed, self.size, self.recipe = seed, size, recipe

    def __iter__(self):  # type: ignore[no-untyped-def]
        torch.set_num_threads(1)
        for batch in encoder_batches(self.seed, self.size, self.recipe):
            yield {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in batch.items()}


def optimizers(modules: list[nn.Module], lr: float, muon: bool) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside transformer layers, AdamW for the rest (or for everything)."""
    inner, rest = [], []
    for module in modules:
        for name, p in module.named_parameters():
            if p.requires_grad:
                (inner if muon and "layers." in name and p.ndim == 2 else rest).append(p)
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    made: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))]
    if inner:
        made.append(torch.optim.Muon(inner, lr=lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"))
    return made


def rate(spent: float, budget: float, warm: float = 0.02, floor: float = 0.02) -> float:
    """Share of the peak learning rate after `spent` of `budget` seconds: warm-up, then cosine."""
    x = min(spent / budget, 1.0)
    if x < warm:
        return max(x / warm, 0.02)
    return floor + (1 - floor) * 0.5 * (1 + float(np.cos(np.pi * (x - warm) / (1 - warm))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(RECIPES), default="llava-next")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--adamw", action="store_true")
    parser.add_argument("--start", help=f"begin from this run's tower and heads, or {SHIPPED}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--float32", action="store_true", help="for CPUs without instructions for bfloat16")
    parser.add_argument("--name", default="encoder")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    RUNS.mkdir(exist_ok=True)
    checkpoint, log = RUNS / f"{args.name}.pt", RUNS / f"{args.name}.jsonl"
    recipe = RECIPES[args.model]
    cfg = recipe.config(recipe.tokenizer()).vision_config
    cfg.vision_use_head = True  # SigLIP's pooling head; CLIP's configuration ignores it
    tower = recipe.tower._from_config(cfg, attn_implementation=PLAIN)
    layers = cfg.num_hidden_layers if recipe.layered else 0
    heads = Heads(cfg.hidden_size, max(layers, 1))
    opts = optimizers([tower, heads], args.lr, not args.adamw)
    layout = Layout(cfg.hidden_size, layers) if layers else None
    if layout is not None:
        opts += optimizers([layout], args.lr, False)
    step, spent = 0, 0.0
    if args.start == SHIPPED and not checkpoint.exists():
        recipe.begin(tower)
    elif args.start or checkpoint.exists():
        state = torch.load(checkpoint if checkpoint.exists() else RUNS / f"{args.start}.pt")
        tower.load_state_dict(state["tower"])
        heads.load_state_dict(state["heads"])
        if layout is not None:
            layout.load_state_dict(state["layout"])
    if checkpoint.exists():
        for opt, s in zip(opts, state["opts"], strict=True):
            opt.load_state_dict(s)
        step, spent = state["step"], state["spent"]
    data = iter(
        DataLoader(Stream(args.seed + step, args.batch, recipe), batch_size=None, num_workers=1, prefetch_factor=8)
    )
    budget = args.minutes * 60
    bar = tqdm(total=round(budget), initial=round(spent), unit="s", mininterval=5)
    mean: dict[str, float] = {}
    while spent < budget:
        begun = time.time()
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = args.lr * rate(spent, budget)
        batch = next(data)
        with torch.autocast("cpu", torch.bfloat16, enabled=not args.float32):
            out = tower(normalise(batch["pixels"]), output_hidden_states=True)
            terms = losses(out, heads, layout, batch, recipe)
            loss = total(terms)
        for opt in opts:
            opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*tower.parameters(), *heads.parameters()], 1.0)
        for opt in opts:
            opt.step()
        step += 1
        for k, v in [("loss", loss), *terms.items()]:
            value = float(v.detach())
            if value == value:
                mean[k] = 0.97 * mean.get(k, value) + 0.03 * value
        before = int(spent)
        spent += time.time() - begun
        bar.update(int(spent) - before)
        if step % 50 == 0:
            row = {"step": step, "s": round(spent), **{k: round(v, 4) for k, v in mean.items()}}
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            bar.set_postfix(step=step, **{k[4:]: round(v, 3) for k, v in mean.items() if k.startswith("acc_")})
        if step % 400 == 0 or spent >= budget:
            state = {
                "tower": tower.state_dict(),
                "layout": layout.state_dict() if layout is not None else None,
                "heads": heads.state_dict(),
                "opts": [o.state_dict() for o in opts],
                "args": vars(args),
                "step": step,
                "spent": spent,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)


if __name__ == "__main__":
    main()
