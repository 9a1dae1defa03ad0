"""What a prompt costs under a budget, and the largest budget that fits, from the configuration alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from hired.core.budget import Budget, EncoderBudget
from hired.core.layout import Layout
from hired.costs import memory, quants
from hired.costs.flops import (
    LLM,
    attention_flops,
    decode_flops,
    embed_flops,
    encoder_flops,
    prefill_flops,
    projector_flops,
    used_layers,
)
from hired.costs.rates import Rates
from hired.costs.shapes import meta_model
from hired.costs.tokens import image_layouts, kept_tokens, max_positions, narrowed
from hired.errors import HiredError
from hired.families.base import Size

__all__ = ["Costs", "Estimator", "Request"]


@dataclass(frozen=True)
class Request:
    """What is asked of the model. Every row of the batch is alike.

    Attributes:
        sizes: (width, height) of every picture of a row.
        batch: rows.
        context: text tokens of a row's prompt.
        new_tokens: tokens generated of a row.
        dtype: a name in `hired.costs.memory.DTYPES`.
        gguf: a name in `hired.costs.quants.TYPES` where llama.cpp runs the LLM from a file of that type, on the CPU;
            `dtype` is then that of encoder and projector. None where PyTorch runs it all.
        device: "cpu" or "cuda", which differ in what they need beside tensors.
        encoder_budget: as in `hired.reduce`, or None.
        alpha: as in `hired.reduce`.
    """

    sizes: tuple[Size, ...]
    batch: int = 1
    context: int = 2048
    new_tokens: int = 256
    dtype: str = "float16"
    gguf: str | None = None
    device: str = "cpu"
    encoder_budget: EncoderBudget | None = None
    alpha: float = 0.5

    def check(self) -> None:
        """Raises `HiredError` for what nobody can ask."""
        memory.value_bytes(self.dtype)
        if self.gguf is not None:
            self._check_gguf(self.gguf)
        for name, value, most in (
            ("pictures", len(self.sizes), 10**6),
            ("rows", self.batch, 10**6),
            ("text tokens (--context)", self.context, 10**9),
            ("new tokens", self.new_tokens, 10**9),
            ("pixels a side", min((min(size) for size in self.sizes), default=1), 10**9),
        ):
            if not 1 <= value <= most:
                raise HiredError(f"{value} {name}: use 1 to {most:,}")

    def _check_gguf(self, type: str) -> None:
        quants.check_type(type)
        if self.dtype == "int4":
            raise HiredError("int4 is PyTorch's: beside a GGUF file encoder and projector take another dtype")
        if self.device != "cpu":
            raise HiredError(f"the LLM of a GGUF file runs on the CPU: plan {type} with --device cpu")
        if self.batch != 1:
            raise HiredError(f"batch {self.batch}: llama.cpp is given one prompt at a time, use --batch 1 with {type}")


@dataclass(frozen=True)
class Costs:
    """What a request costs under one budget. Bytes and FLOPs are of the whole batch.

    Attributes:
        budget: as `hired.reduce` takes it.
        share: visual tokens kept, as a share of all partitions' patches.
        tokens: visual tokens kept of one row. Exact.
        prompt_tokens: text and visual tokens of one row. Exact.
        length: tokens of one row when the last is generated. Exact.
        weights_bytes, kv_bytes: exact. The cache holds `length` tokens; llama.cpp's, a multiple of 256 of them.
        activation_bytes: what the peak adds to weights and KV cache, estimated.
        process_bytes: on a CPU Python, its libraries and what the allocator keeps back, estimated; 0 on a GPU, whose
            allocator does not see its context.
        memory_bytes: the sum at the peak, which is in encoding, prefill or decoding.
        encoder_flops, projector_flops, prefill_flops, decode_flops: multiply-adds of matrix products, times 2.
        ttft_s: seconds from the processor's output to the first token; None without rates.
        tokens_per_s: new tokens over the whole time; None without rates.
    """

    budget: int | float
    share: float
    tokens: int
    prompt_tokens: int
    length: int
    weights_bytes: int
    kv_bytes: int
    activation_bytes: int
    process_bytes: int
    memory_bytes: int
    encoder_flops: int
    projector_flops: int
    prefill_flops: int
    decode_flops: int
    ttft_s: float | None = None
    tokens_per_s: float | None = None

    @property
    def flops(self) -> int:
        """All of them, to the last token."""
        return self.encoder_flops + self.projector_flops + self.prefill_flops + self.decode_flops

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "flops": self.flops}


class Estimator:
    """The costs of one request to one model, for any budget.

    Args:
        config: of the whole model.
        request: what is asked.
        rates: how fast the machine is; None for no times.

    Raises:
        HiredError: a request or a model whose costs are not known.
    """

    def __init__(self, config: Any, request: Request, rates: Rates | None = None) -> None:
        request.check()
        self.config, self.request, self.rates = config, request, rates
        self._model = meta_model(config)

    @cached_property
    def layouts(self) -> list[Layout]:
        """The layout of every picture of a row."""
        return image_layouts(self._model, self.request.sizes)

    @cached_property
    def weights_bytes(self) -> int:
        """Bytes of the weights."""
        ask = self.request
        if ask.gguf is None:
            return memory.weight_bytes(self._model, ask.dtype)
        return memory.tower_bytes(self._model, ask.dtype) + quants.stored_bytes(self.config, ask.gguf)

    @property
    def partitions(self) -> int:
        """Partitions of one row."""
        return sum(layout.partitions for layout in self.layouts)

    @property
    def most(self) -> int:
        """Tokens per image from which on nothing is dropped."""
        return max(layout.tokens_full for layout in self.layouts)

    @property
    def max_length(self) -> int | None:
        """Positions that the LLM was made for, where its configuration tells."""
        return max_positions(self.config)

    @property
    def beside_bytes(self) -> int:
        """Bytes of a device that are not in `Costs.memory_bytes`: a GPU's context."""
        return memory.GPU_CONTEXT if self.request.device == "cuda" else 0

    def at(self, budget: int | float) -> Costs:
        """The costs under a budget.

        Raises:
            BudgetError: a budget out of range, or one that leaves no token.
        """
        parsed, ask, config = Budget.parse(budget), self.request, self.config
        tokens = sum(kept_tokens(layout, parsed) for layout in self.layouts)
        prompt, rows = ask.context + tokens, ask.batch
        patches = sum(layout.partitions * layout.cells_per_partition for layout in self.layouts)
        untouched = all(parsed.allowance(layout) is None for layout in self.layouts)
        peak, kv, blocks = self._peak(tokens, prompt)
        process = memory.process_bytes(blocks) if ask.device == "cpu" else 0
        costs = Costs(
            budget=budget,
            share=tokens / patches,
            tokens=tokens,
            prompt_tokens=prompt,
            length=prompt + ask.new_tokens,
            weights_bytes=self.weights_bytes,
            kv_bytes=kv,
            activation_bytes=peak - kv,
            process_bytes=process,
            memory_bytes=self.weights_bytes + peak + process,
            encoder_flops=rows * self._encoder_flops(parsed, untouched),
            projector_flops=rows * projector_flops(config, patches if untouched else tokens),
            prefill_flops=rows * prefill_flops(config, prompt),
            decode_flops=rows * decode_flops(config, prompt, ask.new_tokens),
        )
        return costs if self.rates is None else self._timed(costs, self.rates)

    def largest(self, fits: Callable[[Costs], bool]) -> Costs | None:
        """The costs of the largest budget for which `fits` holds, in whole tokens per image.

        Args:
            fits: holds for all budgets below one for which it holds.

        Returns:
            Costs whose `budget` is 1 where every token fits; None where not even 2 tokens per image do.
        """
        whole = self.at(1)
        if fits(whole):
            return whole
        low, high = 1, self.most  # the smallest budget in tokens is 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(self.at(middle)) else (low, middle)
        return self.at(low) if low > 1 else None

    def fits_memory(self, limit: float) -> Callable[[Costs], bool]:
        """Whether costs stay within `limit` bytes, a GPU's context counted."""
        return lambda costs: costs.memory_bytes + self.beside_bytes <= limit

    def _encoder_flops(self, budget: Budget, untouched: bool) -> int:
        """Of one row: all layers where nothing is dropped, else up to the one that is used, and narrowed if asked."""
        if untouched:
            return encoder_flops(self.config, self.partitions)
        used, narrow = used_layers(self.config), self.request.encoder_budget
        if narrow is None:
            return encoder_flops(self.config, self.partitions, used)
        after = narrow.layer(0, used - 1)
        kept = [n for layout in self.layouts for n in narrowed(layout, budget, narrow, self.request.alpha)]
        return encoder_flops(self.config, self.partitions, used, narrow_after=after, kept=kept)

    def _peak(self, tokens: int, prompt: int) -> tuple[int, int, int]:
        """Bytes of activations and KV cache at their peak, of that cache at the end, and of what PyTorch makes."""
        ask, config = self.request, self.config
        if ask.gguf is not None:
            return self._peak_gguf(tokens, prompt)
        full = memory.kv_bytes(config, ask.dtype, prompt + ask.new_tokens, ask.batch)
        filled = memory.kv_bytes(config, ask.dtype, prompt, ask.batch)
        encode = memory.encode_bytes(config, ask.dtype, self.partitions * ask.batch)
        prefill = filled + memory.prefill_bytes(config, ask.dtype, prompt, tokens, ask.batch)
        # A step of decoding copies one layer's keys or values to make room for the new ones.
        decode = full + full // (2 * LLM.of(config).layers)
        peak = max(encode, prefill, decode)
        return peak, full, peak

    def _peak_gguf(self, tokens: int, prompt: int) -> tuple[int, int, int]:
        """The same where llama.cpp runs the LLM, whose context is made once the encoder is done."""
        ask, config = self.request, self.config
        cache = memory.context_bytes(config, prompt + ask.new_tokens)
        encode = memory.encode_bytes(config, ask.dtype, self.partitions)
        prefill = cache + memory.graph_bytes(config, ask.dtype, prompt, tokens)
        return max(encode, prefill), cache, encode

    def _timed(self, costs: Costs, rates: Rates) -> Costs:
        """With times: every stage's FLOPs over its rate; the LM head and decoding read all their weights.

        A layer of the encoder takes no less than with one partition, one of the LLM no less than for one token.
        """
        ask, llm = self.request, LLM.of(self.config)
        head = memory.head_bytes(self.config, ask.dtype, ask.gguf) / rates.bandwidth
        mixed = llm.layers * attention_flops(llm, costs.prompt_tokens) * ask.batch
        partitions = self.partitions * ask.batch
        linear = costs.prefill_flops - mixed - 2 * llm.hidden * llm.vocabulary * ask.batch
        encoder = (costs.encoder_flops - partitions * embed_flops(self.config)) / rates.encoder
        prefill = linear / rates.llm + mixed / rates.attention
        ttft = (
            partitions * rates.embed_s
            + max(encoder, used_layers(self.config) * rates.encoder_s)
            + costs.projector_flops / rates.llm
            + max(prefill, llm.layers * rates.step_s)
            + head
        )
        steps = ask.new_tokens - 1
        keys = steps * costs.prompt_tokens + steps * (steps + 1) // 2
        decode = llm.layers * (steps * rates.step_s + keys * rates.key_s) + steps * head
        tokens_per_s = ask.new_tokens * ask.batch / (ttft + decode)
        return Costs(**{**asdict(costs), "ttft_s": ttft, "tokens_per_s": tokens_per_s})
