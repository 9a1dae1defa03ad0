"""Tiny random language models of every architecture, and what their RoPE, windows and heads can be."""

from typing import Any

import torch
import transformers

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 30}
OFTEN = ["full_attention", "sliding_attention"] * 2
"""Windows in other layers than usual."""

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("Llama", "llama", {}),
    "llama-tied": ("Llama", "llama", {"tie_word_embeddings": True}),
    "llama-biases": ("Llama", "llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-heads": ("Llama", "llama", {"head_dim": 32}),
    "llama-linear": ("Llama", "llama", {"rope_parameters": LINEAR}),
    "llama-dynamic": ("Llama", "llama", {"rope_parameters": {**LINEAR, "rope_type": "dynamic"}}),
    "llama-llama3": ("Llama", "llama", {"rope_parameters": LLAMA3}),
    "llama-yarn": ("Llama", "llama", {"rope_parameters": YARN}),
    "llama-yarn-attention": ("Llama", "llama", {"rope_parameters": {**YARN, "attention_factor": 1.3}}),
    "mistral": ("Mistral", "llama", {"sliding_window": None}),
    "ministral3": (
        "Ministral3",
        "mistral3",
        {
            "head_dim": 32,
            "rope_parameters": {
                **YARN,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "beta_fast": 16.0,
                "beta_slow": 2.0,
                "llama_4_scaling_beta": 0.1,
            },
        },
    ),
    "qwen2": ("Qwen2", "qwen2", {}),
    "qwen2-yarn": ("Qwen2", "qwen2", {"rope_parameters": YARN}),
    "qwen3": ("Qwen3", "qwen3", {"head_dim": 32}),
    "cohere": ("Cohere", "command-r", {}),
    "cohere2": ("Cohere2", "cohere2", {"sliding_window": 30}),
    "cohere2-often": ("Cohere2", "cohere2", {"sliding_window": 30, "layer_types": OFTEN}),
    "gemma3": ("Gemma3", "gemma3", GEMMA),
    "gemma3-often": (
        "Gemma3",
        "gemma3",
        {
            **GEMMA,
            "layer_types": OFTEN,
            "final_logit_softcapping": 5.0,
            "rope_parameters": {
                "full_attention": {**LINEAR, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
}
"""Class, llama.cpp's architecture, and settings, by name."""


def make(kind: str, **settings: Any) -> Any:
    """A causal language model; weights that are made as 0 or 1 are neither."""
    config = getattr(transformers, f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{kind}ForCausalLM")(config(**{**SIZES, **settings})).eval()
        for value in model.parameters():
            if value.dim() == 1:
                value.data += 0.1 * torch.randn_like(value)
    return model


def named(name: str) -> Any:
    """The model of a name in `MODELS`."""
    kind, _, settings = MODELS[name]
    return make(kind, **settings)
