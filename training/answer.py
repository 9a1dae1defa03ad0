"""The model's own weights, run in an order that is quicker to train on CPU.

`answer` equals the model's `forward` at the asked positions (`tests/test_training.py`); it computes the last layer only
where an answer token is predicted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from training.sequences import KINDS, LOOK

CHUNKS = 4
"""Runs of queries in causal attention; each sees only the keys up to its own end."""


def grounding(weights: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """How little of the last layer's attention lies on what is asked for.

    When digit i of a value is due, head i ought to look at the patches that show it, legibly; when another answer
    begins, head `LOOK` at the patches of the mark that the answer is read off, of the full image if a tile does not
    show it. -log of its attention there, averaged.

    Args:
        weights: (batch, heads, asked, tokens), the last layer's attention.
        batch: With `digit`, `look`, `first` and `full` (batch, asked), `place`, `owner`, `tile` and `slots` as
            `training.sequences.collate` gives them.
    """
    digit, look, place = batch["digit"], batch["look"], batch["place"]
    owner = batch["owner"].flatten()
    slots = batch["slots"].transpose(1, 2).flatten(0, 1)
    due = (digit >= 0) | ((batch["first"] > 0) & (look >= 0))
    b, t = due.nonzero(as_tuple=True)
    d = digit[b, t]
    at = place.clamp(min=0)
    shows = (place[b] >= 0) & (owner[at[b]] == look[b, t][:, None])
    shows &= (d < 0)[:, None] | (slots[at[b], d.clamp(min=0)[:, None]] > 0)
    shows &= (batch["full"][b, t] <= 0)[:, None] | ~batch["tile"].flatten()[at[b]]
    mass = (weights[b, torch.where(d < 0, LOOK, d), t].float() * shows).sum(-1)
    some = shows.any(-1)
    return -(mass[some] + 1e-4).log().mean()


def naming(namer: nn.Module, states: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """One classifier names what the question and the patches name, from the last layer's input; another the colour.

    Being one and the same, it gives questions and patches one code for a key, which the last layer can
    then compare.

    Args:
        namer: Linear, width -> `KINDS` + colours.
        states: (batch, tokens, width).
        batch: With `what` and `colour` (batch, asked), `name` and `hue` of the visual tokens.

    Returns:
        The losses on answer tokens and on visual tokens that show something.
    """
    place, tail = batch["place"], batch["tail"]
    out = []
    for asked, shown, part in (
        (batch["what"], batch["name"], slice(None, KINDS)),
        (batch["colour"], batch["hue"], slice(KINDS, None)),
    ):
        seen = torch.where(place >= 0, shown.flatten()[place.clamp(min=0)], -1)
        rows, _ = (asked >= 0).nonzero(as_tuple=True)
        told = namer(states[rows, tail[asked >= 0]]).float()[:, part]
        patches = namer(states[seen >= 0]).float()[:, part]
        out.append((_mean(told, asked[asked >= 0]), _mean(patches, seen[seen >= 0])))
    (what, name), (colour, hue) = out
    return what + 0.5 * colour, name + 0.5 * hue


def _mean(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy, nothing of nothing."""
    return F.cross_entropy(logits, target, reduction="sum") / max(len(target), 1)


def answer(model: Any, batch: dict[str, Tensor], shown: Tensor, drop: float) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (batch, asked, vocabulary), the last layer's attention (batch, heads, asked, tokens) and
    its normalised input (batch, tokens, width).

    Args:
        model: The model; only its language model is used.
        batch: What `training.sequences.collate` gives.
        shown: (visual tokens + 1, hidden) from `Recipe.visual`.
        drop: Attention dropout.
    """
    llm = model.model.language_model
    place = batch["place"]
    x = llm.embed_tokens(batch["ids"])
    index = torch.where(place >= 0, place, len(shown) - 1)
    x = torch.where((place == -1)[..., None], x, F.embedding(index, shown).to(x.dtype))
    cos, sin = llm.rotary_emb(x, batch["positions"])
    tail = batch["tail"]
    size = x.shape[1]
    reach = torch.zeros(*tail.shape, size).masked_fill(torch.arange(size) > tail[..., None], float("-inf"))[:, None]
    last = len(llm.layers) - 1
    for i, layer in enumerate(llm.layers):
        attn = layer.self_attn
        h = norm(layer.input_layernorm, x)
        b, n, _ = h.shape
        k = attn.k_proj(h).view(b, n, -1, attn.head_dim).transpose(1, 2)
        v = attn.v_proj(h).view(b, n, -1, attn.head_dim).transpose(1, 2)
        if i < last:
            q = attn.q_proj(h).view(b, n, -1, attn.head_dim).transpose(1, 2)
            q, k = apply_rotary_pos_emb(q, k, cos.to(q.dtype), sin.to(q.dtype))
            mixed = causal(q * attn.scaling, k, v, drop)
        else:
            _, k = apply_rotary_pos_emb(k, k, cos.to(k.dtype), sin.to(k.dtype))
            states = h
            pick = tail[..., None]
            x = x.gather(1, pick.expand(-1, -1, x.shape[-1]))
            h = h.gather(1, pick.expand(-1, -1, h.shape[-1]))
            c, s = (t.gather(1, pick.expand(-1, -1, t.shape[-1])) for t in (cos, sin))
            q = attn.q_proj(h).view(b, tail.shape[1], -1, attn.head_dim).transpose(1, 2)
            q, _ = apply_rotary_pos_emb(q, q, c.to(q.dtype), s.to(q.dtype))
            weights = torch.softmax((q * attn.scaling) @ k.transpose(-1, -2) + reach, -1)
            mixed = F.dropout(weights.to(v.dtype), drop) @ v
        x = x + attn.o_proj(mixed.transpose(1, 2).flatten(2))
        h = norm(layer.post_attention_layernorm, x)
        mlp = layer.mlp
        x = x + mlp.down_proj(F.silu(mlp.gate_proj(h)) * mlp.up_proj(h))
    return model.lm_head(norm(llm.norm, x)), weights, states


def norm(module: nn.Module, x: Tensor) -> Tensor:
    """RMSNorm in one call."""
    return F.rms_norm(x, x.shape[-1:], module.weight, module.variance_epsilon)


def causal(q: Tensor, k: Tensor, v: Tensor, drop: float) -> Tensor:
    """Causal attention in runs of queries; q (scaled), k, v: (batch, heads, tokens, head size)."""
    n = q.shape[2]
    out = []
    for start in range(0, n, -(-n // CHUNKS)):
        end = min(start + -(-n // CHUNKS), n)
        hidden = torch.full((end - start, end), float("-inf"), dtype=q.dtype)
        scores = q[:, :, start:end] @ k[:, :, :end].transpose(-1, -2) + hidden.triu(start + 1)
        weights = (
            F.dropout(torch.softmax(scores, -1).to(v.dtype), drop) if drop else torch.softmax(scores, -1).to(v.dtype)
        )
        out.append(weights @ v[:, :, :end])
    return torch.cat(out, 2)
