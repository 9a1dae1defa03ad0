"""Facts of the language models that llama.cpp runs as transformers does, and what a configuration says of one.

A GGUF file names an architecture and holds numbers under its name; what is not among them, the architecture's code in
llama.cpp fixes. So a configuration is representable where every number has its key and the rest is what is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hired.errors import UnsupportedModelError

__all__ = ["ARCHITECTURES", "Architecture", "Scaling", "TextFacts", "architecture_named", "facts_of", "text_facts"]


@dataclass(frozen=True)
class Architecture:
    """One architecture of llama.cpp's.

    Attributes:
        name: what a file has under `general.architecture`.
        model_types: `model_type` of the text configurations that it runs.
        paired: RoPE turns neighbouring pairs, where transformers turns halves: rows of Q and K are put in that order.
        activation: the one that its code has.
        square: its code takes heads x head size for the width.
        own_head: it can have an LM head that is not the embeddings.
        windows: it keeps the layers' attention windows; the others attend to everything.
        scalings: kinds of RoPE that its code knows, by transformers' names.
        betas: it reads YaRN's bounds; the others have 32 and 1.
        sections: its positions have several axes (M-RoPE).
        centred: its norms' weights are stored less 1 by transformers.
        mutual: visual tokens of a picture see each other.
        epsilon: name of the norm's epsilon in the configuration.
    """

    name: str
    model_types: tuple[str, ...]
    paired: bool = False
    activation: str = "silu"
    square: bool = False
    own_head: bool = True
    windows: bool = False
    scalings: tuple[str, ...] = ("default", "dynamic", "linear", "yarn")
    betas: bool = False
    sections: bool = False
    centred: bool = False
    mutual: bool = False
    epsilon: str = "rms_norm_eps"


_FREQUENCIES = ("default", "dynamic", "linear", "yarn", "llama3")

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("llama", ("llama", "mistral"), paired=True, scalings=_FREQUENCIES),
    Architecture("mistral3", ("ministral3",), paired=True, betas=True),
    Architecture("qwen2", ("qwen2",), square=True),
    Architecture("qwen3", ("qwen3",)),
    Architecture("qwen2vl", ("qwen2_vl_text", "qwen2_5_vl_text"), square=True, scalings=("default",), sections=True),
    Architecture("qwen3vl", ("qwen3_vl_text",), scalings=("default",), sections=True),
    Architecture("command-r", ("cohere",), square=True, own_head=False, epsilon="layer_norm_eps"),
    Architecture(
        "cohere2",
        ("cohere2",),
        square=True,
        own_head=False,
        windows=True,
        scalings=("default",),
        epsilon="layer_norm_eps",
    ),
    Architecture(
        "gemma3",
        ("gemma3_text",),
        activation="gelu_pytorch_tanh",
        windows=True,
        scalings=("default", "linear"),
        centred=True,
        mutual=True,
    ),
)
"""The architectures, one entry each."""


def architecture_named(name: str) -> Architecture:
    """The architecture of a name.

    Raises:
        UnsupportedModelError: none that is known here.
    """
    for kind in ARCHITECTURES:
        if kind.name == name:
            return kind
    known = ", ".join(kind.name for kind in ARCHITECTURES)
    raise UnsupportedModelError(
        f"the architecture {name!r:.60} of llama.cpp's does not run through HiRED: known are {known}"
    )


@dataclass(frozen=True)
class Scaling:
    """How RoPE is stretched.

    Attributes:
        kind: "linear", "yarn" or "llama3".
        factor: by how much.
        original: tokens that the model was trained on before, 0 where nothing depends on it.
        attention: what attention is multiplied with, beside what llama.cpp's YaRN has itself.
        bounds: YaRN's beta_fast and beta_slow.
    """

    kind: str
    factor: float
    original: int = 0
    attention: float = 1.0
    bounds: tuple[float, float] = (32.0, 1.0)


@dataclass(frozen=True)
class TextFacts:
    """What a checkpoint's language model is, in the numbers that a GGUF file of it holds.

    Attributes:
        architecture: what llama.cpp calls it.
        model_type: what transformers calls it.
        layers, width, feed_forward, heads, key_value_heads, head_dim: sizes.
        vocabulary: rows of the embeddings.
        context: tokens up to which llama.cpp computes what transformers does.
        epsilon: of the norms.
        theta: base of RoPE.
        scaling: how it is stretched, None where it is not.
        window: keys that a layer with a window sees, None where the architecture has none.
        sliding: for every layer whether it has the window; empty where none has.
        sliding_theta: base of RoPE in those layers, None where it is the same.
        sections: rotated pairs by axis (M-RoPE); empty for positions of one axis.
        deepstack: features that a visual token brings beside its embedding, for the first layers.
        logit_scale: what logits are multiplied with, None for nothing.
        softcap: bound of the logits, None for none.
        temperature: growth of the queries with their position, 0 for none.
        tied: the LM head is the embeddings.
    """

    architecture: str
    model_type: str
    layers: int
    width: int
    feed_forward: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int
    context: int
    epsilon: float
    theta: float
    scaling: Scaling | None = None
    window: int | None = None
    sliding: tuple[bool, ...] = ()
    sliding_theta: float | None = None
    sections: tuple[int, ...] = ()
    deepstack: int = 0
    logit_scale: float | None = None
    softcap: float | None = None
    temperature: float = 0.0
    tied: bool = False

    @property
    def facts(self) -> Architecture:
        """The architecture's own facts."""
        return architecture_named(self.architecture)


def text_facts(model: Any) -> TextFacts:
    """What the language model of a model is, or of the checkpoint that a tower is of.

    Args:
        model: of `hired.gguf.load_tower`, a whole vision-language model, or a language model.

    Raises:
        UnsupportedModelError: llama.cpp does not run it as transformers does.
    """
    return facts_of(model.config)


def facts_of(config: Any) -> TextFacts:
    """What the language model of a configuration is.

    Args:
        config: of a whole vision-language model, or of a language model.

    Raises:
        UnsupportedModelError: llama.cpp does not run it as transformers does.
    """
    text = config.get_text_config()
    kind = _architecture(text.model_type)
    heads = int(text.num_attention_heads)
    head_dim = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    window, sliding, bounded = _windows(kind, text)
    theta, sliding_theta, scaling = _rope(kind, text)
    _check_fixed(kind, text, heads, head_dim)
    tied = bool(config.tie_word_embeddings)
    if not tied and not kind.own_head:
        raise _refused(kind, "its LM head is not tied to the embeddings")
    context = int(text.max_position_embeddings)
    return TextFacts(
        architecture=kind.name,
        model_type=str(text.model_type),
        layers=int(text.num_hidden_layers),
        width=int(text.hidden_size),
        feed_forward=int(text.intermediate_size),
        heads=heads,
        key_value_heads=int(getattr(text, "num_key_value_heads", None) or heads),
        head_dim=head_dim,
        vocabulary=int(text.vocab_size),
        context=min(context, bounded or context),
        epsilon=float(getattr(text, kind.epsilon)),
        theta=theta,
        scaling=scaling,
        window=window,
        sliding=sliding,
        sliding_theta=sliding_theta,
        sections=_sections(kind, text),
        deepstack=_deepstack(kind, config),
        # The vision-language classes of transformers leave it out.
        logit_scale=None
        if getattr(text, "logit_scale", None) is None
        else float(text.logit_scale if text is config else 1.0),
        softcap=getattr(text, "final_logit_softcapping", None),
        temperature=float(_parameters(text).get("llama_4_scaling_beta") or 0.0),
        tied=tied,
    )


def _architecture(model_type: str) -> Architecture:
    for kind in ARCHITECTURES:
        if model_type in kind.model_types:
            return kind
    known = ", ".join(name for kind in ARCHITECTURES for name in kind.model_types)
    raise UnsupportedModelError(
        f"a language model of model_type {model_type!r} does not run on llama.cpp through HiRED: known are {known}"
    )


def _refused(kind: Architecture, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"llama.cpp's {kind.name!r} cannot run this language model as transformers does: {why}; use it with torch"
    )


def _check_fixed(kind: Architecture, text: Any, heads: int, head_dim: int) -> None:
    """Refuses what the architecture's code has otherwise."""
    activation = getattr(text, "hidden_activation", None) or getattr(text, "hidden_act", None)
    if activation != kind.activation:
        raise _refused(kind, f"its activation is {activation!r} in place of {kind.activation!r}")
    if kind.square and heads * head_dim != text.hidden_size:
        raise _refused(kind, f"{heads} heads of {head_dim} are not its width of {text.hidden_size}")
    for name in ("use_qk_norm", "attn_logit_softcapping", "use_bidirectional_attention"):
        if getattr(text, name, None):
            raise _refused(kind, f"it has {name}={getattr(text, name)}")
    if getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None):
        raise _refused(kind, "it has experts")
    scale = getattr(text, "query_pre_attn_scalar", None)
    fixed = text.hidden_size // heads if text.num_hidden_layers == 62 else head_dim  # the 27B model's, by its depth
    if scale is not None and scale != fixed:
        raise _refused(kind, f"query_pre_attn_scalar is {scale} in place of {fixed}")


def _windows(kind: Architecture, text: Any) -> tuple[int | None, tuple[bool, ...], int | None]:
    """The window, the layers that have it, and the length up to which it does not matter where llama.cpp has none."""
    window = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None)
    layers = int(text.num_hidden_layers)
    sliding = tuple(each == "sliding_attention" for each in kinds) if kinds else (bool(window),) * layers
    if kind.windows:
        if not window or len(sliding) != layers:
            raise _refused(kind, f"sliding_window is {window} and layer_types tell of {len(sliding)} layers")
        return int(window), sliding, None
    return None, (), int(window) if window and any(sliding) else None


def _parameters(text: Any) -> Mapping[str, Any]:
    """RoPE's parameters, those of the layers without a window where there are two kinds."""
    found: Mapping[str, Any] = text.rope_parameters or {}
    whole: Mapping[str, Any] = found.get("full_attention", found)
    return whole


def _rope(kind: Architecture, text: Any) -> tuple[float, float | None, Scaling | None]:
    """RoPE's base, that of layers with a window where it is another, and how it is stretched."""
    given, parameters = text.rope_parameters or {}, _parameters(text)
    name = parameters.get("rope_type", "default")
    if name not in kind.scalings:
        raise _refused(kind, f"RoPE of the kind {name!r}")
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise _refused(kind, "RoPE turns only a part of every head")
    theta = float(parameters["rope_theta"])
    local = given.get("sliding_attention")
    if local is not None and local.get("rope_type", "default") != "default":
        raise _refused(kind, "RoPE is stretched in layers with a window")
    sliding_theta = float(local["rope_theta"]) if local is not None else None
    if name in ("default", "dynamic"):  # the latter is the former up to max_position_embeddings
        return theta, sliding_theta, None
    factor = float(parameters["factor"])
    original = int(parameters.get("original_max_position_embeddings") or text.max_position_embeddings)
    if name != "yarn":
        return theta, sliding_theta, Scaling(name, factor, original if name == "llama3" else 0)
    return theta, sliding_theta, _yarn(kind, text, parameters, factor, original)


def _yarn(kind: Architecture, text: Any, parameters: Mapping[str, Any], factor: float, original: int) -> Scaling:
    """YaRN; transformers works out what it multiplies attention with."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    bounds = (float(parameters.get("beta_fast") or 32), float(parameters.get("beta_slow") or 1))
    if bounds != (32.0, 1.0) and not kind.betas:
        raise _refused(kind, f"YaRN between {bounds[0]:g} and {bounds[1]:g} turns")
    if not parameters.get("truncate", True):
        raise _refused(kind, "YaRN without truncation")
    _, attention = ROPE_INIT_FUNCTIONS["yarn"](text, device="cpu")
    return Scaling("yarn", factor, original, float(attention) / (1 + 0.1 * math.log(factor)), bounds)


def _sections(kind: Architecture, text: Any) -> tuple[int, ...]:
    if not kind.sections:
        return ()
    return tuple(int(size) for size in _parameters(text).get("mrope_section") or ())


def _deepstack(kind: Architecture, config: Any) -> int:
    if kind.name != "qwen3vl":
        return 0
    count = len(getattr(getattr(config, "vision_config", None), "deepstack_visual_indexes", None) or ())
    layers = config.get_text_config().num_hidden_layers
    if count >= layers:  # an assertion in there ends the process
        raise _refused(kind, f"each of its {layers} layers takes DeepStack features, {count} in all")
    return count
