"""How fast a machine is: measured on a few layers of the model itself, or given by hand."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle
from typing import Any

from hired.costs.flops import LLM, Tower, attention_flops, embed_flops, encoder_flops
from hired.costs.memory import layer_bytes, value_bytes
from hired.errors import HiredError

__all__ = ["Rates", "by_hand", "calibrate"]

RUNS = 16
"""Timed runs that share the time there is."""

IN_A_ROW = 4
"""Layers started before the device is waited for: on a fast GPU starting them is what takes time."""

LEAST_RATE, MOST_RATE = 1e-6, 1e9
"""What rates given by hand may be, in 10^12 FLOP/s and 10^9 bytes/s."""

WORKING_SET = 256_000_000
"""Bytes of layers that decoding is timed on: more than the caches of a processor or GPU hold."""


@dataclass(frozen=True)
class Rates:
    """What a machine does per second, for one model and dtype.

    Attributes:
        encoder: FLOP/s in the encoder's layers, all their operations included.
        encoder_s: seconds that one of those layers takes, however little it has to do.
        embed_s: seconds for one partition before those layers.
        llm: FLOP/s in the LLM's layers in prefill, without attention.
        attention: FLOP/s of causal attention, of those it needs.
        bandwidth: bytes/s of weights in a product with one vector.
        step_s: seconds that one layer of the LLM takes for one step of decoding, with nothing cached.
        key_s: seconds more for each cached token.
        source: "measured" or "given".
    """

    encoder: float
    encoder_s: float
    embed_s: float
    llm: float
    attention: float
    bandwidth: float
    step_s: float
    key_s: float
    source: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def by_hand(config: Any, dtype: str, batch: int, tflops: float, bandwidth: float, gguf: str | None = None) -> Rates:
    """Rates of a machine that is not at hand.

    Args:
        config: of the whole model.
        dtype: a name in `hired.costs.memory.DTYPES`.
        batch: rows decoded together.
        tflops: 10^12 FLOP/s that its matrix products reach; well below what the data sheet says.
        bandwidth: 10^9 bytes/s that its memory reaches.
        gguf: a name in `hired.costs.quants.TYPES`: the LLM's weights as llama.cpp has them, its cache in float16.

    Raises:
        HiredError: a rate that no machine has.
    """
    for name, rate in (("--tflops", tflops), ("--bandwidth", bandwidth)):
        if not LEAST_RATE <= rate <= MOST_RATE:
            raise HiredError(f"{name} {rate:g}: use a number above 0, from {LEAST_RATE:g} to {MOST_RATE:g}")
    llm, size, flops, speed = LLM.of(config), value_bytes(dtype), tflops * 1e12, bandwidth * 1e9
    cached = 2 * llm.kv_heads * llm.head_dim * (size if gguf is None else 2) * batch
    return Rates(
        encoder=flops,
        encoder_s=0.0,
        embed_s=embed_flops(config) / flops,
        llm=flops,
        attention=flops,
        bandwidth=speed,
        step_s=layer_bytes(config, dtype, gguf) / speed,
        key_s=cached / speed,
        source="given",
    )


def calibrate(
    config: Any, dtype: str, device: str, *, batch: int = 1, length: int = 2048, seconds: float = 2.0
) -> Rates:
    """Measures this machine for about `seconds`, on a few layers of the model with random weights.

    Layers are taken whole, so that their norms, activations and attention are in the rates.

    Args:
        config: of the whole model.
        dtype: float32, bfloat16 or float16.
        device: what `torch.device` takes.
        batch: rows decoded together.
        length: about how many tokens a prompt has.
        seconds: about how long to measure; making the layers comes on top.

    Raises:
        HiredError: int4, which needs kernels that a few random layers do not have.
    """
    if dtype == "int4":
        raise HiredError("times in int4 cannot be measured on random weights: use --dtype float16, or give --tflops")
    import torch

    from hired.costs.randomly import random_model

    target = torch.device(device)
    full = LLM.of(config)
    layers = min(full.layers, max(1, round(WORKING_SET / (full.layer_weights * value_bytes(dtype)))))
    small = _few_layers(config, layers)
    model = random_model(small, target, getattr(torch, dtype))
    clock = _Clock(torch, target, seconds / RUNS)
    with torch.inference_mode():
        encoder, least, embed = _encoder(clock, model, small)
        attention = _attention(clock, full, model, length)
        llm = _llm_rate(clock, model, small, length)
        bandwidth = _bandwidth(clock, full, model)
        step, key = _step(clock, model, small, batch, length)
    return Rates(encoder, least, embed, llm, attention, bandwidth, step, key, "measured")


class _Clock:
    """Times things on a device. `seconds` is about how long one run may take, where its size can be chosen."""

    def __init__(self, torch: Any, device: Any, seconds: float) -> None:
        self.torch, self.device, self.seconds = torch, device, seconds

    def once(self, run: Callable[[], Any]) -> float:
        """Seconds of one run, the device waited for."""
        start = self._now()
        run()
        return self._now() - start

    def best(self, run: Callable[[], Any]) -> float:
        """Seconds of the quickest run, of three and on for a while after one to warm up: what disturbs only adds."""
        self.once(run)
        spent: list[float] = []
        while len(spent) < 3 or (sum(spent) < self.seconds and len(spent) < 100):
            spent.append(self.once(run))
        return min(spent)

    def size(self, make: Callable[[int], Callable[[], Any]], least: int, most: int) -> int:
        """The largest size, doubled from `least` up to `most`, whose `make(size)` runs in the time there is."""
        size = min(least, most)
        self.once(make(size))
        while size < most and self.once(make(size)) * 2 < self.seconds:
            size = min(size * 2, most)
        return size

    def _now(self) -> float:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _few_layers(config: Any, layers: int) -> Any:
    """The configuration with one encoder layer, `layers` layers of the LLM and a small vocabulary."""
    small = copy.deepcopy(config)
    text, vision = small.text_config, small.vision_config
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    text.vocab_size, small.image_token_id = 128, 0
    text.pad_token_id = text.bos_token_id = text.eos_token_id = None
    vision.num_hidden_layers = small.vision_feature_layer = 1
    return small


def _encoder(clock: _Clock, model: Any, config: Any) -> tuple[float, float, float]:
    """(FLOP/s of a layer, seconds of a layer with one partition, seconds for one partition before the layers)."""
    from hired.families import family_of

    parts, vision = family_of(model).parts(model), config.vision_config
    layer, side, length = parts.layers[0], int(vision.image_size), Tower.of(config).sequence

    def through(partitions: int) -> Callable[[], Any]:
        return partial(layer, _random(model, partitions, length, int(vision.hidden_size)), attention_mask=None)

    partitions = clock.size(through, 2, 8)  # one alone is slower than each of several
    spent = clock.best(through(partitions))
    whole = clock.best(partial(parts.tower, _random(model, partitions, 3, side, side)))
    alone = through(1)
    least = clock.best(lambda: [alone() for _ in range(IN_A_ROW)]) / IN_A_ROW
    flops = encoder_flops(config, partitions) - partitions * embed_flops(config)
    return flops / spent, least, max(whole - spent, 0.0) / partitions


def _random(model: Any, *shape: int) -> Any:
    import torch

    return torch.randn(shape, dtype=model.dtype, device=model.device)


def _attend(model: Any, llm: LLM, tokens: int) -> Callable[[], Any]:
    from torch.nn.functional import scaled_dot_product_attention

    states = _random(model, 1, llm.heads, tokens, llm.head_dim)
    return partial(scaled_dot_product_attention, states, states, states, is_causal=True)


def _attention(clock: _Clock, llm: LLM, model: Any, length: int) -> float:
    """FLOP/s at the length asked, or the longest there is time for: it is the longest that attention matters for."""
    tokens = clock.size(partial(_attend, model, llm), min(256, length), length)
    return attention_flops(llm, tokens) / clock.best(_attend(model, llm, tokens))


def _llm_rate(clock: _Clock, model: Any, config: Any, length: int) -> float:
    """FLOP/s of a layer without its attention, each run in another layer: weights come from memory, as they do."""
    import torch

    llm, stack = LLM.of(config), model.model.language_model
    layers = cycle(stack.layers)

    def through(tokens: int) -> Callable[[], Any]:
        hidden, places = _random(model, 1, tokens, llm.hidden), torch.arange(tokens, device=model.device)[None]
        given = {
            "attention_mask": None,
            "position_ids": places,
            "position_embeddings": stack.rotary_emb(hidden, places),
        }
        return lambda: next(layers)(hidden, **given)

    tokens = clock.size(through, min(64, length), length)
    spent = clock.best(through(tokens))
    mixing = clock.best(_attend(model, llm, tokens))
    # Never below half of what was measured: attention may do better among the other operations than alone.
    return 2 * tokens * llm.layer_weights / max(spent - mixing, spent / 2)


def _bandwidth(clock: _Clock, llm: LLM, model: Any) -> float:
    """Bytes/s of the LM head's product with one vector."""
    import torch
    from torch.nn.functional import linear

    weight = torch.zeros(llm.vocabulary, llm.hidden, dtype=model.dtype, device=model.device)
    vector = _random(model, 1, llm.hidden)
    return float(weight.nbytes / clock.best(lambda: linear(vector, weight)))


def _step(clock: _Clock, model: Any, config: Any, batch: int, length: int) -> tuple[float, float]:
    """(seconds of one layer for one step of decoding with nothing cached, seconds more for each cached token)."""
    import torch
    from transformers import DynamicCache

    from hired.caching import cache_argument

    llm = LLM.of(config)
    token = torch.ones(batch, 1, dtype=torch.int64, device=model.device)

    def spent(cached: int) -> float:
        cache = DynamicCache(config=config.text_config)
        states = torch.zeros(batch, llm.kv_heads, cached, llm.head_dim, dtype=model.dtype, device=model.device)
        for layer in range(llm.layers):
            cache.update(states, states, layer)

        def step() -> None:
            model(input_ids=token, **{cache_argument(model): cache})
            # Back to the same length: a GPU may prepare itself for every length that it has not met.
            cache.crop(-1)

        return clock.best(step) / llm.layers

    few, many = 16, max(length, 256)
    short, long = spent(few), spent(many)
    key = max(long - short, 0.0) / (many - few)
    return max(short - few * key, 0.0), key
