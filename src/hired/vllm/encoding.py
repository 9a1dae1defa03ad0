"""The part inside the model: encode, read what the method reads, select, and project only what is kept."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from vllm.distributed import get_tp_group, tensor_model_parallel_all_gather

from hired.core.budget import Budget
from hired.core.image import Attention, Image
from hired.core.layout import STRUCTURE, Layout
from hired.core.transfer import moved_to
from hired.encoding.readings import taps_for
from hired.encoding.taps import Tap
from hired.errors import HiredError, UnsupportedModelError
from hired.methods.base import Method, merged_of, shares_of, told_early
from hired.reduction.project import chosen, mixed
from hired.vllm.geometry import Geometry
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


@dataclass(frozen=True)
class Found:
    """What the encoder gave for a few pictures.

    Attributes:
        states: what the model's `encode` returned.
        images: each picture as the method sees it; None for one whose tokens all stay.
        features: (T, width) of each, what the LLM would get of all its tokens; None where they were not made.
    """

    states: Tensor
    images: list[Image | None]
    features: list[Tensor] | None = None


class PrunedEncoder:
    """Gives every picture exactly as many embeddings as it has placeholders.

    Attributes:
        method: what the tokens are chosen by. What it reads is looked up for every call, and no more is computed.
        geometry: the layouts of the model's pictures.
        cells: most cells of partitions that are encoded at a time, or those of one picture if that has more.
    """

    def __init__(self, model: Any, settings: Settings, geometry: Geometry, scheduler: Any) -> None:
        """Takes over the encoder of a model of vLLM's.

        Args:
            model: a `hired.vllm.models.Pruned`.
            settings: the server's settings.
            geometry: the layouts of the model's pictures.
            scheduler: vLLM's `SchedulerConfig`.

        Raises:
            UnsupportedModelError: fewer layers than the family reads.
        """
        self.model, self.geometry = model, geometry
        self.method: Method = settings.chosen()
        layers, parts = model.encoder_layers(), geometry.encoder
        if parts.last >= len(layers):
            raise UnsupportedModelError(
                f"vLLM loaded {len(layers)} encoder layers where {parts.last + 1} are used: this checkpoint does not"
                " work as its family does"
            )
        # vLLM loads no layer that is not used; which of them are read follows from how many there are in all.
        self.encoder = replace(
            parts, layers=layers, starts=parts.first, middles=parts.middle, tells=parts.last, attends=model.attends
        )
        # With fewer tokens a picture, the scheduler believes that many more pictures fit a step than vLLM has measured
        # memory with. It has measured at least this many of the largest, which is what it encodes without a budget.
        pictures = scheduler.max_num_encoder_input_tokens // geometry.limit(Budget.parse(1))
        self.cells = max(min(pictures, scheduler.max_num_seqs), 1) * _cells(geometry.largest)
        self._placed = lru_cache(maxsize=128)(self._place)

    def embed(self, pixels: Any, described: Tensor) -> list[Tensor]:
        """Embeddings of pictures, one (count, width) tensor each.

        Args:
            pixels: the pictures' pixel values as vLLM batches them.
            described: (pictures, 5) int64 on the CPU, what `hired.vllm.processing.FIELD` says of each.

        Raises:
            EngineError: embeddings and placeholders differ in number.
        """
        pictures = [self._placed(*row) for row in described.tolist()]
        each, embeddings = self.model.by_picture(pixels, [picture.layout for picture in pictures]), []
        for part in self._batches(pictures):
            found = self.encode(each[part], pictures[part])
            kept = self.select(found)
            tokens = self._project(found, pictures[part], kept)
            for picture, rows, own in zip(pictures[part], kept, tokens, strict=True):
                embeddings.append(self.model.labelled(own, picture.layout, rows))
        check_counts(embeddings, described[:, 2].tolist())
        return embeddings

    def encode(self, pixels: Any, pictures: Sequence[Picture]) -> Found:
        """Encodes a few pictures and reads what the method reads, if any of them loses tokens."""
        layouts, batch = [picture.layout for picture in pictures], torch.cat(list(pixels))
        if all(picture.untouched for picture in pictures):
            return Found(self.model.encode(batch, layouts), [None] * len(pictures))
        reads, family = self.method.reads, self.geometry.family
        # A picture's own sequence among those that stand in one, where the encoder's batch is not one of partitions.
        edges = None if family.batched else [0, *accumulate(part.shape[0] for part in pixels)]
        full = moved_to(batch.device, family.full_images(layouts)) if "first" in reads and family.batched else None
        taps = taps_for(self.encoder, reads, full, keys=family.tokenwise)
        with _reading(list(taps.values()), edges):
            states = self.model.encode(batch, layouts)
        attention = self._attention(taps, layouts)
        totals = [None if picture.untouched else picture.count for picture in pictures]
        firsts = [rows.first for rows in attention]
        told = told_early(self.method, batch.device)
        shares = (shares_of(self.method, layouts, firsts, totals, "drop") if told else None) or [None] * len(pictures)
        features: list[Tensor] | None = None
        if "features" in reads or ("states" in reads and not family.tokenwise):
            features = self._features(states, pictures)
        images, start = [], 0
        for index, picture in enumerate(pictures):
            seen = None if features is None else self.model.embedded(features[index])
            images.append(
                Image(
                    layout=picture.layout,
                    attention=attention[index],
                    total=picture.count,
                    newlines="drop",
                    shares=shares[index],
                    states=self._states(states, picture, start, seen),
                    features=seen,
                    pixels=pixels[index] if "pixels" in reads and family.batched else None,
                )
                if not picture.untouched
                else None
            )
            start += picture.layout.partitions
        return Found(states, images, features)

    def _states(self, states: Tensor, picture: Picture, start: int, features: Tensor | None) -> Tensor | None:
        """(T, d) of a picture whose partitions begin at `start`; its `features` where a token is not one output."""
        if "states" not in self.method.reads:
            return None
        if not self.geometry.family.tokenwise:
            return features
        return states.flatten(0, 1)[_all_places(picture.layout, start, states)]

    def select(self, found: Found) -> list[Tensor | None]:
        """Chooses the tokens of every picture.

        Returns:
            Sorted (count,) int64 indices into its untouched tokens, None where all are kept.
        """
        kept = [None if image is None else self.method.select(image) for image in found.images]
        return [None if rows is None else agreed(rows) for rows in kept]

    def _attention(self, taps: dict[str, Tap], layouts: Sequence[Layout]) -> list[Attention]:
        """What was read of each picture, of all heads; each rank of a tensor-parallel group computed some of them."""
        family, pictures = self.geometry.family, list(layouts)
        runs = 1 if family.batched else len(pictures)
        each = {}
        for name, tap in taps.items():
            rows_of = family.first_rows if name == "first" else family.last_rows
            each[name] = rows_of([self._rows(tap, runs)], self.encoder, pictures)
        if "received" in self.method.reads and self.encoder.cls is None:
            each["received"] = each["last"]  # the same there
        return [Attention(**{name: parts[index] for name, parts in each.items()}) for index in range(len(layouts))]

    def _rows(self, tap: Tap, runs: int) -> Tensor:
        """(items, heads, ..., keys); `runs` readings of sequences that follow each other."""
        if len(tap.rows) != runs:
            raise EngineError(
                f"the encoder's attention was read {len(tap.rows)} times in place of {runs}: serve without compiling or"
                " capturing the vision encoder"
            )
        return all_heads(torch.cat(tap.rows, -1), tap.module)

    def _features(self, states: Tensor, pictures: Sequence[Picture]) -> list[Tensor]:
        """(T, width) of each picture: all its tokens as the LLM would get them, newlines among them."""
        if self.geometry.family.tokenwise:
            return self._projected(states, pictures, [None] * len(pictures), [None] * len(pictures))
        found: list[Tensor] = self.model.features(states, [picture.layout for picture in pictures])
        return found

    def _project(self, found: Found, pictures: Sequence[Picture], kept: list[Tensor | None]) -> list[Tensor]:
        """What the LLM gets of the kept tokens.

        Where a token is made of several patches every token is made, and the dropped ones thrown away.
        """
        merges = [
            None if image is None or rows is None else merged_of(self.method, image, rows)
            for image, rows in zip(found.images, kept, strict=True)
        ]
        tokenwise = self.geometry.family.tokenwise
        if tokenwise and (found.features is None or any(merge is not None for merge in merges)):
            return self._projected(found.states, pictures, kept, merges)
        features = self._features(found.states, pictures) if found.features is None else found.features
        return [chosen(*parts) for parts in zip(features, kept, merges, strict=True)]

    def _projected(
        self,
        states: Tensor,
        pictures: Sequence[Picture],
        kept: Sequence[Tensor | None],
        merges: Sequence[Tensor | None],
    ) -> list[Tensor]:
        """As `_project`, where each token is one encoder output: no other is projected. They are merged before."""
        places, start = [], 0
        for picture, rows, merge in zip(pictures, kept, merges, strict=True):
            layout, taken = picture.layout, picture.real if rows is None else rows
            if merge is None:
                places.append(_places(layout.partition[taken], layout.cell[taken], start, states))
            else:
                places.append(_all_places(layout, start, states))
            start += layout.partitions
        outputs, counts = states.flatten(0, 1)[torch.cat(places)], [place.numel() for place in places]
        if any(merge is not None for merge in merges):
            parts = zip(torch.split(outputs, counts), merges, strict=True)
            each = [part if merge is None else mixed(merge, part) for part, merge in parts]
            outputs, counts = torch.cat(each), [len(part) for part in each]
        projected = torch.split(self.model.project(outputs), counts)
        return [
            self._with_newlines(picture, tokens) if rows is None else tokens
            for picture, rows, tokens in zip(pictures, kept, projected, strict=True)
        ]

    def _with_newlines(self, picture: Picture, tokens: Tensor) -> Tensor:
        newline: Tensor | None = self.model.newline()
        if newline is None:
            return tokens
        every = newline.to(tokens).expand(picture.layout.tokens_full, -1).clone()
        return every.index_copy_(0, picture.real, tokens)

    def _batches(self, pictures: Sequence[Picture]) -> Iterator[slice]:
        """Runs of pictures with at most `self.cells` cells together."""
        start = total = 0
        for index, picture in enumerate(pictures):
            if index > start and total + _cells(picture.layout) > self.cells:
                yield slice(start, index)
                start, total = index, 0
            total += _cells(picture.layout)
        yield slice(start, len(pictures))

    def _place(self, width: int, height: int, count: int, fewest: int, most: int) -> Picture:
        layout = self.geometry.under((fewest, most)).layout(width, height)
        real = (layout.partition != STRUCTURE).nonzero().flatten()
        device = self.model.device()
        return Picture(layout.to(device), real.to(device), count)


def _cells(layout: Layout) -> int:
    """Visual tokens that the encoder computes of a picture, before unpadding."""
    return layout.partitions * layout.cells_per_partition


def _places(partition: Tensor, cell: Tensor, start: int, states: Tensor) -> Tensor:
    """Where tokens of a picture whose partitions begin at `start` stand in the flattened (partitions, N, d) states."""
    return (start + partition) * states.shape[1] + cell


def _all_places(layout: Layout, start: int, states: Tensor) -> Tensor:
    """The same of all tokens of a picture; at newlines it is some place."""
    return _places(layout.partition, layout.cell, start, states).clamp(min=0)


def all_heads(rows: Tensor, attention: Any) -> Tensor:
    """What was read of the heads of all ranks, (items, heads, ..., keys), the same on every rank."""
    if getattr(attention, "tp_size", 1) == 1:  # without it, every rank computes all heads
        return rows
    gathered: Tensor = tensor_model_parallel_all_gather(rows.contiguous(), dim=1)
    return gathered


def agreed(rows: Tensor) -> Tensor:
    """The first rank's choice, on every rank of several: sums may round differently on each."""
    group = get_tp_group()
    return rows if group.world_size == 1 else group.broadcast(rows)


def check_counts(embeddings: Sequence[Tensor], placeholders: list[int]) -> None:
    """Refuses what vLLM itself would not notice: more embeddings than placeholders.

    Raises:
        EngineError: the numbers differ.
    """
    counts = [embedding.shape[0] for embedding in embeddings]
    if counts != placeholders:
        raise EngineError(f"{counts} embeddings were made for {placeholders} placeholders: please report this")


@contextmanager
def _reading(taps: list[Tap], edges: list[int] | None) -> Iterator[None]:
    """While the block runs, the taps' layers are read, through hooks that are removed afterwards.

    `edges`, where several sequences stand in one: where each starts, and the end.
    """

    def hook(tap: Tap) -> Any:
        def read(attention: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            query, key = args[:2] if args else (named["query"], named["key"])
            scale: Any = attention.scale
            tap.read(_heads(query, attention), _heads(key, attention), None, scale, edges)

        return read

    handles = [
        tap.module.attn.register_forward_pre_hook(hook(tap), with_kwargs=True)  # type: ignore[union-attr]
        for tap in taps
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _heads(states: Tensor, attention: Any) -> Tensor:
    """(batch, tokens, heads * d) or (batch, tokens, heads, d) as (batch, heads, tokens, d)."""
    return states.reshape(*states.shape[:2], -1, attention.head_size).transpose(1, 2)
