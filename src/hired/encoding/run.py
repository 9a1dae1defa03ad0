"""One run of a vision encoder that computes no layer, partition or patch whose result nobody uses.

The encoder is called as it is. For the time of the call, hooks in front of its layers shorten the hidden states that
pass: to the partitions that keep tokens once their shares are known, and, with an encoder budget, to each partition's
most promising patches. Behind the last layer that is used, the call ends. Only calls of the thread that asked are
touched.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hired.compiling import untraced
from hired.core.budget import EncoderBudget
from hired.core.transfer import moved_to
from hired.encoding.distinct import distinct
from hired.encoding.packed import Packed
from hired.encoding.readings import taps_for
from hired.encoding.taps import Reading, Tap, active, look_ahead, tapping
from hired.families.base import Encoder

Divide = Callable[[Tensor], list[int]]
"""From the full images' first rows (images, heads, N) to the tokens each partition keeps. Waits for the device."""


class _Enough(Exception):
    """Ends a call of the encoder in front of the first layer that nobody needs."""


@dataclass(frozen=True)
class Cut:
    """How an encoder budget narrows the encoder.

    Attributes:
        layer: the first layer that sees only the most promising patches, behind the initial one.
        budget: how many patches each partition goes on with.
        real: (n, N) bool, False for patches that the packer leaves out: they go on only when all others do.
    """

    layer: int
    budget: EncoderBudget
    real: Tensor


@dataclass(frozen=True)
class Patches:
    """What the encoder gave for n partitions of N patches.

    Attributes:
        states: one (rows, d) tensor for each of the encoder's states.
        place: (n, N) int64, the row of each patch; means nothing for patches that were left out.
        first: (images, heads, N) float32, the full images' scores in the initial layer; None where not asked for.
        rows: (n, heads, ..., N) float32 of the other readings asked for, by name. Of "last", 0 for patches left out
            after the encoder's cut, and without meaning for partitions that keep nothing.
    """

    states: list[Tensor]
    place: Tensor
    first: Tensor | None
    rows: dict[str, Tensor]

    def of(self, partition: Tensor, cell: Tensor) -> Tensor:
        """Encoder outputs of K patches, (K, d), the states side by side."""
        place = self.place[partition, cell]
        return torch.cat([state[place] for state in self.states], dim=-1)


def run(
    encoder: Encoder,
    pixels: Tensor,
    full: Tensor,
    *,
    reads: Collection[str] = ("first", "last"),
    divide: Divide | None = None,
    stops: bool = False,
    cut: Cut | None = None,
) -> Patches:
    """Runs the encoder once over n partitions.

    Args:
        encoder: the encoder.
        pixels: (n, channels, height, width).
        full: (images,) int64, which partitions are full images, beside `pixels`.
        reads: which of `hired.core.image.ATTENTION` are wanted; under a cut, "first" and "last" at most.
        divide: called once, as soon as the initial layer is read; None where shares are not known so early.
        stops: leave out partitions whose share is 0 from then on.
        cut: the encoder budget, if any.
    """
    # Under a cut twins may keep different patches: their unpadding differs.
    unique, twin = distinct(pixels) if cut is None else (list(range(len(pixels))),) * 2
    batch = pixels if len(unique) == len(pixels) else pixels[_there(unique, pixels.device)]
    alive = _there(twin, pixels.device)
    taps = taps_for(encoder, reads, alive[full])
    first = taps.pop("first", None)
    steps = _Run(encoder, twin, alive, first, divide, stops, cut)
    read = [*([first] if first else []), *taps.values()]
    with tapping(encoder.tower, read) as reading, _steering(encoder, steps, reading), suppress(_Enough):
        encoder.tower(batch)
    if divide is not None and first is not None and encoder.first == encoder.last:  # there is no layer left to spare
        divide(encoder.scores(first.rows[0]))
    return steps.result(taps)


def _there(numbers: list[int], device: torch.device) -> Tensor:
    """Whole numbers on a device."""
    return moved_to(device, torch.tensor(numbers))


class _Run:
    """The hidden states' way through one call.

    `alive` maps each of the n partitions to its row of the batch as it is at the time.
    """

    def __init__(
        self,
        encoder: Encoder,
        twin: list[int],
        alive: Tensor,
        first: Tap | None,
        divide: Divide | None,
        stops: bool,
        cut: Cut | None,
    ) -> None:
        self.encoder, self.twin, self.alive, self.first = encoder, twin, alive, first
        self.extra = 0 if encoder.cls is None else 1  # tokens in front of the patches
        self.divide, self.stops, self.cut = divide, stops, cut
        self.states: dict[int, Tensor] = {}
        self.packed: Packed | None = None
        self.real: Tensor | None = None
        self.tokens: Tensor | None = None  # after the cut: of each slot, its place among the `size` tokens before
        self.size = 0

    def before(self, layer: int, hidden: Tensor, reading: Reading, call: Callable[[Tensor], Any]) -> Tensor:
        """What layer `layer` gets in place of the (batch, tokens, d) `hidden`; `call` runs it."""
        if layer == self.encoder.first + 1 and layer <= self.encoder.last and self.divide and self.first:
            hidden = self._stop(hidden, self.divide(self.encoder.scores(self.first.rows[0])))
        if self.cut is not None and layer == self.cut.layer:
            hidden = self._narrow(hidden, reading, call)
        if layer in self.encoder.states:
            self.states[layer] = hidden
        if layer > self.encoder.last:
            raise _Enough
        return hidden

    def _stop(self, hidden: Tensor, shares: list[int]) -> Tensor:
        """Leaves out partitions that keep nothing; prepares the cut here, while the device is waited for anyway."""
        needed = [0] * hidden.shape[0]
        for row, tokens in zip(self.twin, shares, strict=True):
            needed[row] = max(needed[row], tokens)
        rows = list(range(len(needed)))
        if self.stops and not all(needed):
            rows = [row for row in rows if needed[row]]
            index = _there(rows, hidden.device)
            new = [0] * len(needed)
            for place, row in enumerate(rows):
                new[row] = place
            self.alive = _there([new[row] for row in self.twin], hidden.device)
            hidden = hidden[index]
            self.states = {layer: state[index] for layer, state in self.states.items()}
            self.real = self.cut.real[index.to(self.cut.real.device)] if self.cut else None
        if self.cut is not None:
            self.real = self.cut.real if self.real is None else self.real
            most = self.real.shape[1]
            lengths = [self.extra + self.cut.budget.patches(needed[row], most) for row in rows]
            self.packed = Packed.of(lengths, hidden.device)
        return hidden

    def _narrow(self, hidden: Tensor, reading: Reading, call: Callable[[Tensor], Any]) -> Tensor:
        """Goes on with the best patches of each partition, and the CLS token, packed into one sequence.

        The layer's own attention ranks them, read before the layer runs: it tells more than the layer before it.
        """
        packed, real, cut = self.packed, self.real, self.cut
        if packed is None or real is None or cut is None:
            raise RuntimeError("an encoder budget needs shares before its layer")
        rank = Tap(self.encoder.attention(cut.layer), self.encoder.cls)
        look_ahead(reading, rank, lambda: call(hidden))
        scores = self.encoder.scores(rank.rows[0]).sum(1)
        order = scores.masked_fill(~real.to(scores.device), -1.0).argsort(dim=1, descending=True, stable=True)
        best = order[:, : packed.whole.place.shape[1] - self.extra] + self.extra
        if self.extra:
            best = torch.cat((torch.zeros_like(best[:, :1]), best), 1)
        start = torch.arange(len(best), device=best.device)[:, None] * hidden.shape[1]
        chosen = (start + best).flatten()[packed.slot]
        self.tokens, self.size = best, hidden.shape[1]
        self.states = {layer: state.flatten(0, 1)[chosen][None] for layer, state in self.states.items()}
        reading.packed = packed
        return hidden.flatten(0, 1)[chosen][None]

    def result(self, taps: dict[str, Tap]) -> Patches:
        """What was computed, by partition and patch."""
        states = [self.states[layer] for layer in self.encoder.states]
        rows = {name: tap.rows[0] for name, tap in taps.items()}
        if self.tokens is None or self.packed is None:
            count, tokens = states[0].shape[:2]
            place = torch.arange(count * tokens, device=states[0].device).view(count, tokens)
        else:
            count, tokens = len(self.tokens), self.size
            by_slot = torch.zeros(self.tokens.shape, dtype=torch.int64, device=self.tokens.device)
            by_slot.view(-1)[self.packed.slot] = torch.arange(self.packed.slot.numel(), device=by_slot.device)
            place = by_slot.new_zeros(count, tokens).scatter_(1, self.tokens, by_slot)
            for name, row in rows.items():
                where = self.tokens[:, None].expand(-1, row.shape[1], -1)
                rows[name] = row.new_zeros(*row.shape[:2], tokens).scatter_(2, where, row)
        alive, scores = self.alive.to(place.device), self.encoder.scores
        return Patches(
            states=[state.flatten(0, 1) for state in states],
            place=place[alive, self.extra :],
            first=scores(self.first.rows[0]) if self.first else None,
            rows={name: scores(row)[alive] for name, row in rows.items()},
        )


@contextmanager
def _steering(encoder: Encoder, steps: _Run, reading: Reading) -> Iterator[None]:
    """Hooks in front of the layers where something changes, for calls made under `reading`."""
    final = len(encoder.layers)
    wanted = {*encoder.states, encoder.first + 1, encoder.last + 1, *([steps.cut.layer] if steps.cut else [])}
    handles = []

    def hook(layer: int) -> Any:
        # torch may call a hook that another thread is removing without the keywords it was registered for.
        @untraced
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
            if active() is not reading or kwargs is None or reading.ahead is not None:
                return None
            if args:

                def positional(hidden: Tensor) -> Any:
                    return module(hidden, *args[1:], **kwargs)

                return (steps.before(layer, args[0], reading, positional), *args[1:]), kwargs

            def named(hidden: Tensor) -> Any:
                return module(**{**kwargs, "hidden_states": hidden})

            return args, {**kwargs, "hidden_states": steps.before(layer, kwargs["hidden_states"], reading, named)}

        return enter

    @untraced
    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if active() is reading:
            steps.states[final] = output if isinstance(output, Tensor) else output[0]

    try:
        for layer in wanted:
            if layer < final:
                handles.append(encoder.layers[layer].register_forward_pre_hook(hook(layer), with_kwargs=True))
            elif layer in encoder.states:
                handles.append(encoder.layers[final - 1].register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()
