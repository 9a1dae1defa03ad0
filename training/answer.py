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

CHUNKS = 4
"""Runs of queries in causal attention; each sees only the keys up to its own end."""


def grounding(weights: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """How little of the last layer's attention lies on the digit that is asked for.

    When digit i of a value is due, head i ought to look at the tile patches that show it. -log of its
    attention there, averaged over all digits due.

    Args:
        weights: (batch, heads, asked, tokens), the last layer's attention.
        batch: With `digit` (batch, asked), the digit's number or -1, and `line` (batch, asked), the
            index of the key asked for; `place`, `key`, `slots` and `whole` as elsewhere.
    """
    digit, line = batch["digit"], batch["line"]
    b, t = (digit >= 0).nonzero(as_tuple=True)
    d = digit[b, t]
    place = batch["place"]
    key = torch.where(batch["whole"][:, None] > 0, batch["key"], -1).flatten()
    slots = batch["slots"].transpose(1, 2).flatten(0, 1)
    at = place.clamp(min=0)
    shows = (place[b] >= 0) & (key[at[b]] == line[b, t][:, None])
    shows &= slots[at[b], d[:, None]] > 0
    mass = (weights[b, d, t].float() * shows).sum(-1)
    some = shows.any(-1)
    return -(mass[some] + 1e-4).log().mean()


def naming(namer: nn.Module, states: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """One classifier names the key of the question and of the patches, from the last layer's input.

    Being one and the same, it gives questions and patches one code for a key, which the last layer can
    then compare.

    Args:
        namer: Linear, width -> keys.
        states: (batch, tokens, width).
        batch: As for `grounding`.

    Returns:
        The losses on answer tokens and on tile patches that show text.
    """
    key = torch.where(batch["whole"][:, None] > 0, batch["key"], -1).flatten()
    place = batch["place"]
    shown = torch.where(place >= 0, key[place.clamp(min=0)], -1)
    asked = batch["line"] >= 0
    rows, _ = asked.nonzero(as_tuple=True)
    told = namer(states[rows, batch["tail"][asked]]).float()
    seen = namer(states[shown >= 0]).float()
    return (
        F.cross_entropy(told, batch["line"][asked]),
        F.cross_entropy(seen, shown[shown >= 0]),
    )


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
