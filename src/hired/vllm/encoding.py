"""The part inside the model: encode, read attention, select, and project only what is kept."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from vllm.distributed import tensor_model_parallel_all_gather

from hired.core.budget import Budget
from hired.core.image import Attention, Image
from hired.core.layout import STRUCTURE, Layout
from hired.core.transfer import moved_to
from hired.encoding.taps import Tap
from hired.errors import HiredError, UnsupportedModelError
from hired.methods.base import shares_of
from hired.methods.hired import HiRED
from hired.vllm.geometry import geometry_of
from hired.vllm.settings import Settings


class EngineError(HiredError, RuntimeError):
    """The engine and the plugin disagree on something that would make answers wrong."""


@dataclass(frozen=True)
class Picture:
    """One picture to encode.

    Attributes:
        layout: where its tokens come from, on the model's device.
        real: (R,) int64, which of its tokens are patches.
        count: visual tokens to give to the LLM, the placeholders it has.
    """

    layout: Layout
    real: Tensor
    count: int

    @property
    def untouched(self) -> bool:
        """Whether all its tokens stay, newlines included."""
        return self.count == self.layout.tokens_full


class PrunedEncoder:
    """Gives every picture exactly as many embeddings as it has placeholders.

    Attributes:
        partitions: most partitions that are encoded at a time, or those of one picture if that has more.
    """

    def __init__(self, model: Any, settings: Settings, scheduler: Any) -> None:
        """Takes over the encoder of a model of vLLM's.

        Args:
            model: a `hired.vllm.models.Pruned`.
            settings: the server's settings.
            scheduler: vLLM's `SchedulerConfig`.
        """
        self.model = model
        self.method = HiRED(settings.alpha)
        self.geometry = geometry_of(model.config)
        layers, parts = model.encoder_layers(), self.geometry.encoder
        if parts.last >= len(layers):
            raise UnsupportedModelError(
                f"vLLM loaded {len(layers)} encoder layers where {parts.last + 1} are used: this checkpoint does not"
                " work as its family does"
            )
        self.first, self.last = layers[parts.first].self_attn, layers[parts.last].self_attn
        self.cls = parts.cls
        # With fewer tokens a picture, the scheduler believes that many more pictures fit a step than vLLM has measured
        # memory with. It has measured at least this many of the largest, which is what it encodes without a budget.
        pictures = scheduler.max_num_encoder_input_tokens // self.geometry.limit(Budget.parse(1))
        self.partitions = max(min(pictures, scheduler.max_num_seqs), 1) * self.geometry.largest.partitions
        self._placed = lru_cache(maxsize=128)(self._place)

    def embed(self, pixels: Any, described: Tensor) -> list[Tensor]:
        """Embeddings of pictures, one (count, hidden) tensor each.

        Args:
            pixels: the pictures' pixel values as vLLM batches them, one entry a picture.
            described: (pictures, 3) int64 on the CPU: width, height, visual tokens to keep.

        Raises:
            EngineError: embeddings and placeholders differ in number.
        """
        pictures = [self._placed(*row) for row in described.tolist()]
        embeddings: list[Tensor] = []
        for part in self._batches(pictures):
            found, kept = self.select(pixels[part], pictures[part])
            embeddings += self._project(found, pictures[part], kept)
        check_counts(embeddings, described[:, 2].tolist())
        return embeddings

    def select(self, pixels: Any, pictures: Sequence[Picture]) -> tuple[Tensor, list[Tensor | None]]:
        """Encodes a few pictures and chooses their tokens.

        Returns:
            (partitions, N, d) what the encoder gave; for every picture sorted (count,) int64 indices into its untouched
            tokens, None where all are kept.
        """
        layouts = [picture.layout for picture in pictures]
        # Each picture's own partitions, without the padding that evens out a batch.
        each = zip(pixels, layouts, strict=True)
        batch = torch.cat([image.view(-1, *image.shape[-3:])[: layout.partitions] for image, layout in each])
        if all(picture.untouched for picture in pictures):
            return self.model.encode(batch), [None] * len(pictures)
        full = moved_to(batch.device, self.geometry.family.full_images(layouts))
        first, last = Tap(self.first, self.cls, full), Tap(self.last, self.cls)
        with _reading([first, last]):
            found = self.model.encode(batch)
        heads, rows = list(self._attention(first)), self._attention(last)
        totals = [None if picture.untouched else picture.count for picture in pictures]
        shares = shares_of(self.method, layouts, heads, totals, "drop") or [None] * len(pictures)
        split = torch.split(rows, [layout.partitions for layout in layouts])
        kept = [
            None
            if picture.untouched
            else self.method.select(Image(picture.layout, Attention(mine, theirs), picture.count, "drop", share))
            for picture, mine, theirs, share in zip(pictures, heads, split, shares, strict=True)
        ]
        return found, kept

    def _attention(self, tap: Tap) -> Tensor:
        """(items, heads, N) of all heads; each rank of a tensor-parallel group computed some of them."""
        if len(tap.rows) != 1:
            raise EngineError(
                f"the encoder's attention was read {len(tap.rows)} times in one run: serve without compiling or"
                " capturing the vision encoder"
            )
        return self.geometry.encoder.scores(all_heads(tap.rows[0], tap.module))

    def _project(self, found: Tensor, pictures: Sequence[Picture], kept: list[Tensor | None]) -> list[Tensor]:
        """What the LLM sees of the kept tokens."""
        if not self.geometry.family.tokenwise:
            return self._packed(found, pictures, kept)
        patches, places, start = found.shape[1], [], 0
        for picture, rows in zip(pictures, kept, strict=True):
            rows = picture.real if rows is None else rows
            layout = picture.layout
            places.append((start + layout.partition[rows]) * patches + layout.cell[rows])
            start += layout.partitions
        projected = self.model.project(found.flatten(0, 1)[torch.cat(places)])
        each = torch.split(projected, [place.numel() for place in places])
        return [
            self._with_newlines(picture, tokens) if rows is None else tokens
            for picture, rows, tokens in zip(pictures, kept, each, strict=True)
        ]

    def _packed(self, found: Tensor, pictures: Sequence[Picture], kept: list[Tensor | None]) -> list[Tensor]:
        """As `_project`, where the packer mixes patches: every token is made, and the dropped ones thrown away."""
        each = torch.split(self.model.project(found), [picture.layout.partitions for picture in pictures])
        tokens = [
            self.model.pack(picture.layout.size, patches) for picture, patches in zip(pictures, each, strict=True)
        ]
        return [full if rows is None else full[rows] for full, rows in zip(tokens, kept, strict=True)]

    def _with_newlines(self, picture: Picture, tokens: Tensor) -> Tensor:
        newline: Tensor | None = self.model.newline()
        if newline is None:
            return tokens
        every = newline.to(tokens).expand(picture.layout.tokens_full, -1).clone()
        return every.index_copy_(0, picture.real, tokens)

    def _batches(self, pictures: Sequence[Picture]) -> Iterator[slice]:
        """Runs of pictures with at most `self.partitions` partitions together."""
        start = total = 0
        for index, picture in enumerate(pictures):
            if index > start and total + picture.layout.partitions > self.partitions:
                yield slice(start, index)
                start, total = index, 0
            total += picture.layout.partitions
        yield slice(start, len(pictures))

    def _place(self, width: int, height: int, count: int) -> Picture:
        layout = self.geometry.layout(width, height)
        real = (layout.partition != STRUCTURE).nonzero().flatten()
        device = self.model.device()
        return Picture(layout.to(device), real.to(device), count)


def all_heads(rows: Tensor, attention: Any) -> Tensor:
    """Attention rows of the heads of all ranks, (items, heads, keys), the same on every rank."""
    if attention.tp_size == 1:
        return rows
    gathered: Tensor = tensor_model_parallel_all_gather(rows.contiguous(), dim=1)
    return gathered


def check_counts(embeddings: Sequence[Tensor], placeholders: list[int]) -> None:
    """Refuses what vLLM itself would not notice: more embeddings than placeholders.

    Raises:
        EngineError: the numbers differ.
    """
    counts = [embedding.shape[0] for embedding in embeddings]
    if counts != placeholders:
        raise EngineError(f"{counts} embeddings were made for {placeholders} placeholders: please report this")


@contextmanager
def _reading(taps: list[Tap]) -> Iterator[None]:
    """While the block runs, the taps' layers are read, through hooks that are removed afterwards."""

    def hook(tap: Tap) -> Any:
        def read(attention: nn.Module, given: tuple[Any, ...]) -> None:
            query, key = (_heads(states, attention) for states in given[:2])
            tap.read(query, key, None, attention.scale)  # type: ignore[arg-type]

        return read

    handles = [tap.module.attn.register_forward_pre_hook(hook(tap)) for tap in taps]  # type: ignore[union-attr]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _heads(states: Tensor, attention: Any) -> Tensor:
    """(batch, tokens, heads * d) as (batch, heads, tokens, d)."""
    return states.view(*states.shape[:2], -1, attention.head_size).transpose(1, 2)
