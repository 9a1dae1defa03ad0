"""One run of a vision encoder that computes no layer, partition or patch whose result nobody uses.

The encoder is called as it is. For the time of the call, hooks in front of its layers shorten the hidden states that
pass: to the partitions that keep tokens once their shares are known, and, with an encoder budget, to each partition's
most promising patches. Behind the last layer that is used, the call ends. Only calls of the thread that asked are
touched.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
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
        states: one (rows, tokens, d) tensor for each of the encoder's states.
        alive: (n,) int64, the row of each partition; None where that is the partition's own number.
        extra: tokens in front of the patches in every row.
        place: (n, N) int64, the place of each patch in the one row there is after a cut; means nothing for patches
            that were left out. None without a cut.
        first: (images, heads, N) float32, the full images' scores in the initial layer; None where not asked for.
        rows: (n, heads, ..., N) float32 of the other readings asked for, by name. Of "last", 0 for patches left out
            after the encoder's cut, and without meaning for partitions that keep nothing.
    """

    states: list[Tensor]
    alive: Tensor | None
    extra: int
    place: Tensor | None
    first: Tensor | None
    rows: dict[str, Tensor]

    def of(self, partition: Tensor, cell: Tensor) -> Tensor:
        """Encoder outputs of K patches, (K, d), the states side by side; some output where they are negative."""
        if self.place is not None:
            place = self.place[partition, cell]
            found = [state[0, place] for state in self.states]
        else:
            row = partition if self.alive is None else self.alive[partition]
            token = cell + self.extra if self.extra else cell
            found = [state[row, token] for state in self.states]
        return found[0] if len(found) == 1 else torch.cat(found, dim=-1)


def run(
    encoder: Encoder,
    pixels: Tensor,
    full: Sequence[int],
    *,
    reads: Collection[str] = ("first", "last"),
    divide: Divide | None = None,
    stops: bool = False,
    cut: Cut | None = None,
    twins: bool = True,
) -> Patches:
    """Runs the encoder once over n partitions.

    Args:
        encoder: the encoder.
        pixels: (n, channels, height, width).
        full: which partitions are full images.
        reads: which of `hired.core.image.ATTENTION` are wanted; under a cut, "first" and "last" at most.
        divide: called once, as soon as the initial layer is read; None where shares are not known so early.
        stops: leave out partitions whose share is 0 from then on.
        cut: the encoder budget, if any.
        twins: encode partitions that look the same once; to find them the device is waited for. Not under a cut, where
            twins may keep different patches: their unpadding differs.
    """
    unique, twin = distinct(pixels) if twins and cut is None else (list(range(len(pixels))),) * 2
    batch = pixels if len(unique) == len(pixels) else pixels[_there(unique, pixels.device)]
    alive = None if len(unique) == len(pixels) else _there(twin, pixels.device)
    taps = taps_for(encoder, reads, _some([twin[each] for each in full], pixels.device))
    first = taps.pop("first", None)
    steps = _Run(encoder, twin, alive, first, divide, stops, cut)
    read = [*([first] if first else []), *taps.values()]
    with tapping(encoder.tower, read) as reading, _steering(encoder, steps, reading), suppress(_Enough):
        encoder.tower(batch)
    if divide is not None and first is not None and encoder.first == encoder.last:  # there is no layer left to spare
        divide(steps.scores())
    return steps.result(taps)


def _there(numbers: list[int], device: torch.device) -> Tensor:
    """Whole numbers on a device."""
    return moved_to(device, torch.tensor(numbers))


def _some(numbers: list[int], device: torch.device) -> Tensor | slice:
    """Places in a batch, on a device: a slice where they are evenly spaced, as with pictures of one size."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    if step > 0 and numbers == list(range(numbers[0], numbers[-1] + 1, step)):
        return slice(numbers[0], numbers[-1] + 1, step)
    return _there(numbers, device)


class _Run:
    """The hidden states' way through one call.

    `alive` maps each of the n partitions to its row of the batch as it is at the time; None for its own number.
    """

    def __init__(
        self,
        encoder: Encoder,
        twin: list[int],
        alive: Tensor | None,
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
        self._scores: Tensor | None = None

    def scores(self) -> Tensor:
        """(images, heads, N) of the initial layer, once it has been read."""
        if self._scores is None:
            if self.first is None:
                raise RuntimeError("nobody read the initial layer")
            self._scores = self.encoder.scores(self.first.rows[0])
        return self._scores

    def before(self, layer: int, hidden: Tensor, reading: Reading, call: Callable[[Tensor], Any]) -> Tensor:
        """What layer `layer` gets in place of the (batch, tokens, d) `hidden`; `call` runs it."""
        if layer == self.encoder.first + 1 and layer <= self.encoder.last and self.divide and self.first:
            hidden = self._stop(hidden, self.divide(self.scores()))
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
        alive, place = self.alive, None
        if self.tokens is not None and self.packed is not None:
            count, tokens = len(self.tokens), self.size
            by_slot = torch.zeros(self.tokens.shape, dtype=torch.int64, device=self.tokens.device)
            by_slot.view(-1)[self.packed.slot] = torch.arange(self.packed.slot.numel(), device=by_slot.device)
            place = by_slot.new_zeros(count, tokens).scatter_(1, self.tokens, by_slot)
            for name, row in rows.items():
                where = self.tokens[:, None].expand(-1, row.shape[1], -1)
                rows[name] = row.new_zeros(*row.shape[:2], tokens).scatter_(2, where, row)
            place = place[:, self.extra :] if alive is None else place[alive, self.extra :]
        scored = {name: self.encoder.scores(row) for name, row in rows.items()}
        return Patches(
            states=states,
            alive=None if alive is None else alive.to(states[0].device),
            extra=self.extra,
            place=place,
            first=self.scores() if self.first else None,
            rows={name: row if alive is None else row[alive.to(row.device)] for name, row in scored.items()},
        )


@contextmanager
def _steering(encoder: Encoder, steps: _Run, reading: Reading) -> Iterator[None]:
    """Hooks in front of the layers where something changes, for calls made under `reading`."""
    final = len(encoder.layers)
    wanted = {*encoder.states, encoder.last + 1, *([steps.cut.layer] if steps.cut else [])}
    wanted |= {encoder.first + 1} if steps.divide else set()
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
