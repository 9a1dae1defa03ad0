"""Floating-point operations of each stage, from the configuration. A multiply and an add count as 2.

Matrix products only: norms, activations, rotary embeddings and the softmax are left out, as is usual. All numbers
are for one sequence; a batch of equal rows costs so many times as much.

`torch.utils.flop_counter.FlopCounterMode` counts the same, except for causal attention: it counts all L x L pairs,
also where the kernel skips those above the diagonal. The functions here count the L (L + 1) / 2 pairs that are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hired.errors import HiredError, UnsupportedModelError
from hired.families.base import used_states

__all__ = [
    "LLM",
    "Tower",
    "attention_flops",
    "decode_flops",
    "embed_flops",
    "encoder_flops",
    "prefill_flops",
    "projector_flops",
    "used_layers",
]

DENSE_GATED = ("llama", "mistral", "qwen2", "qwen3")
"""`text_config.model_type` of LLMs that the formulas were checked for: attention and a gated MLP, no experts."""


@dataclass(frozen=True)
class LLM:
    """The numbers of a language model that costs depend on.

    Attributes:
        layers, hidden, intermediate, heads, kv_heads, head_dim, vocabulary: as its configuration has them.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> LLM:
        """Reads `config.text_config`.

        Raises:
            UnsupportedModelError: an LLM that the formulas do not describe, such as one with experts.
        """
        text = config.text_config
        if text.model_type not in DENSE_GATED:
            raise UnsupportedModelError(
                f"the costs of an LLM of type {text.model_type!r} are not known: known are {', '.join(DENSE_GATED)}"
            )
        heads = int(text.num_attention_heads)
        return cls(
            layers=int(text.num_hidden_layers),
            hidden=int(text.hidden_size),
            intermediate=int(text.intermediate_size),
            heads=heads,
            kv_heads=int(getattr(text, "num_key_value_heads", None) or heads),
            head_dim=int(getattr(text, "head_dim", None) or text.hidden_size // heads),
            vocabulary=int(text.vocab_size),
        )

    @property
    def layer_weights(self) -> int:
        """Weights of one layer's matrices: query, key, value, output; gate, up, down."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate


@dataclass(frozen=True)
class Tower:
    """The numbers of a vision encoder that costs depend on.

    Attributes:
        layers, hidden, intermediate, heads: as its configuration has them.
        cells: patches of one partition (N).
        patch: numbers of one patch: channels x side x side.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    cells: int
    patch: int

    @classmethod
    def of(cls, config: Any) -> Tower:
        """Reads `config.vision_config`.

        Raises:
            UnsupportedModelError: not a CLIP tower.
        """
        vision = config.vision_config
        if vision.model_type != "clip_vision_model":
            raise UnsupportedModelError(
                f"the costs of the vision encoder {vision.model_type!r} are not known: use CLIP"
            )
        side = int(vision.patch_size)
        return cls(
            layers=int(vision.num_hidden_layers),
            hidden=int(vision.hidden_size),
            intermediate=int(vision.intermediate_size),
            heads=int(vision.num_attention_heads),
            cells=(int(vision.image_size) // side) ** 2,
            patch=int(vision.num_channels) * side * side,
        )

    @property
    def sequence(self) -> int:
        """Tokens of one partition in the encoder: its patches and the CLS token."""
        return self.cells + 1

    @property
    def layer_weights(self) -> int:
        """Weights of one layer's matrices: query, key, value, output; up, down."""
        return 4 * self.hidden**2 + 2 * self.hidden * self.intermediate


def used_layers(config: Any) -> int:
    """Encoder layers up to the deepest one whose output the model uses (23 of CLIP-L's 24 in LLaVA)."""
    return max(used_states(config.vision_feature_layer, Tower.of(config).layers))


def encoder_flops(
    config: Any,
    partitions: int,
    layers: int | None = None,
    *,
    narrow_after: int | None = None,
    kept: Sequence[int] = (),
) -> int:
    """FLOPs of the vision encoder.

    patches x patch x hidden x 2, and in every layer 2 n x (4 hidden^2 + 2 hidden intermediate) + 4 n^2 hidden for a
    partition of n tokens (its patches and the CLS token).

    Args:
        config: of the whole model.
        partitions: how many are encoded, of all images.
        layers: layers computed; None for all, as transformers does. HiRED computes `used_layers(config)`.
        narrow_after: layers after which each partition goes on with some of its patches (`encoder_budget`). Ranking
            them takes the next layer's projections to queries, keys and values, of all patches.
        kept: patches each partition goes on with then; one number a partition.

    Raises:
        HiredError: `kept` that does not fit `partitions`, or layers the encoder does not have.
    """
    tower = Tower.of(config)
    total = tower.layers if layers is None else layers
    wide = total if narrow_after is None else narrow_after
    if not 0 <= wide <= total <= tower.layers:
        raise HiredError(f"layers={layers} and narrow_after={narrow_after} do not fit {tower.layers} encoder layers")
    if narrow_after is not None and len(kept) != partitions:
        raise HiredError(f"kept= has {len(kept)} numbers for {partitions} partitions: give one a partition")
    embed = partitions * embed_flops(config)
    narrow = sum(_encoder_layer(tower, count + 1) for count in kept) * (total - wide)
    if wide < total:  # the ranking: queries, keys and values of all patches
        narrow += partitions * 6 * tower.sequence * tower.hidden**2
    return embed + partitions * wide * _encoder_layer(tower, tower.sequence) + narrow


def embed_flops(config: Any) -> int:
    """FLOPs of one partition's patch embedding."""
    tower = Tower.of(config)
    return 2 * tower.cells * tower.patch * tower.hidden


def _encoder_layer(tower: Tower, length: int) -> int:
    return 2 * length * tower.layer_weights + 4 * length**2 * tower.hidden


def projector_flops(config: Any, tokens: int) -> int:
    """FLOPs of the two-layer MLP between encoder and LLM: 2 tokens x (features hidden + hidden^2).

    transformers projects every patch (partitions x N); HiRED projects the kept ones.
    """
    used = config.vision_feature_layer
    features = int(config.vision_config.hidden_size) * (1 if isinstance(used, int) else len(used))
    hidden = int(config.text_config.hidden_size)
    return 2 * tokens * (features * hidden + hidden * hidden)


def prefill_flops(config: Any, length: int) -> int:
    """FLOPs of the LLM's first pass over a prompt of `length` tokens, causal, logits for the last token only.

    layers x (2 length x weights of a layer + 2 length (length + 1) heads head_dim) + 2 hidden vocabulary.
    """
    llm = LLM.of(config)
    return (
        llm.layers * (2 * length * llm.layer_weights + attention_flops(llm, length)) + 2 * llm.hidden * llm.vocabulary
    )


def attention_flops(llm: LLM, length: int) -> int:
    """FLOPs of one layer's causal attention: scores and mixing of length (length + 1) / 2 pairs."""
    return 2 * length * (length + 1) * llm.heads * llm.head_dim


def decode_flops(config: Any, length: int, new_tokens: int) -> int:
    """FLOPs of the steps after the prefill of `length` tokens until there are `new_tokens` new ones.

    The prefill gives the first, so there are `new_tokens` - 1 steps; step t sees `length` + t keys.
    """
    llm = LLM.of(config)
    steps = max(new_tokens - 1, 0)
    keys = steps * length + steps * (steps + 1) // 2
    step = llm.layers * 2 * llm.layer_weights + 2 * llm.hidden * llm.vocabulary
    return steps * step + llm.layers * 4 * keys * llm.heads * llm.head_dim
