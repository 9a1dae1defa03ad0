"""What a GGUF file says of a language model."""

from __future__ import annotations

from typing import Any

from hired.gguf.architectures import TextFacts

__all__ = ["write_header"]


def write_header(writer: Any, facts: TextFacts, name: str | None) -> None:
    """Puts the facts of a language model into a `gguf.GGUFWriter`."""
    from gguf import RopeScalingType

    writer.add_type("model")
    if name:
        writer.add_name(name)
    writer.add_vocab_size(facts.vocabulary)
    writer.add_context_length(facts.context)
    writer.add_embedding_length(facts.width)
    writer.add_block_count(facts.layers)
    writer.add_feed_forward_length(facts.feed_forward)
    writer.add_head_count(facts.heads)
    writer.add_head_count_kv(facts.key_value_heads)
    writer.add_key_length(facts.head_dim)
    writer.add_value_length(facts.head_dim)
    if facts.facts.epsilon == "rms_norm_eps":
        writer.add_layer_norm_rms_eps(facts.epsilon)
    else:
        writer.add_layer_norm_eps(facts.epsilon)
    writer.add_rope_dimension_count(facts.head_dim)
    writer.add_rope_freq_base(facts.theta)
    scaling = facts.scaling
    if scaling is not None and scaling.kind != "llama3":  # which is a tensor of the file
        writer.add_rope_scaling_type(RopeScalingType(scaling.kind))
        writer.add_rope_scaling_factor(scaling.factor)
    if scaling is not None and scaling.kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling.original)
        writer.add_rope_scaling_attn_factors(scaling.attention)
        writer.add_rope_scaling_yarn_beta_fast(scaling.bounds[0])
        writer.add_rope_scaling_yarn_beta_slow(scaling.bounds[1])
    if facts.window is not None:
        writer.add_sliding_window(facts.window)
        writer.add_sliding_window_pattern(list(facts.sliding))
    if facts.sliding_theta is not None:
        writer.add_rope_freq_base_swa(facts.sliding_theta)
    if facts.sections:
        writer.add_rope_dimension_sections([*facts.sections, *(0,) * (4 - len(facts.sections))])
    if facts.deepstack:
        writer.add_num_deepstack_layers(facts.deepstack)
    if facts.logit_scale is not None:
        writer.add_logit_scale(facts.logit_scale)
    if facts.softcap is not None:
        writer.add_final_logit_softcapping(facts.softcap)
    if facts.temperature:
        writer.add_attn_temperature_scale(facts.temperature)
