"""Which layers of an encoder are read for what a method asks for, and its hidden states where it runs as it is."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hired.compiling import untraced
from hired.encoding.taps import Reading, Tap, active
from hired.families.base import Encoder

PIXELS = -1
"""The key of the pixels among recorded states."""


def taps_for(
    encoder: Encoder, reads: Collection[str], full: Tensor | slice | None, *, keys: bool = True
) -> dict[str, Tap]:
    """A tap for each of the readings in `hired.core.image.ATTENTION` that are asked for.

    In an encoder without a CLS token, what tokens receive in the last used layer is "last", which is read once.

    Args:
        encoder: the encoder.
        reads: names of readings; others are not looked at.
        full: which entries of the encoder's batch are full images, (images,) int64 or a slice; None to read all.
        keys: whether keys are to be had.
    """
    last, cls = encoder.attention(encoder.last), encoder.cls
    made: dict[str, Callable[[], Tap]] = {
        "first": lambda: Tap(encoder.attention(encoder.first), cls, full),
        "last": lambda: Tap(last, cls),
        "middle": lambda: Tap(encoder.attention(encoder.middle), None),
        "received": lambda: Tap(last, None),
        "keys": lambda: Tap(last, None, keys=True),
    }
    wanted = {"last" if name == "received" and cls is None else name for name in reads if name in made}
    return {name: make() for name, make in made.items() if name in wanted and (keys or name != "keys")}


@contextmanager
def recording(encoder: Encoder, reading: Reading) -> Iterator[dict[int, Any]]:
    """The hidden states in `encoder.states` of the call made while the block runs under `reading`, by layer.

    And, as `PIXELS`, what the encoder was called with.
    """
    found: dict[int, Any] = {}
    handles = []

    @untraced
    def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        if active() is reading and kwargs is not None:
            found[PIXELS] = args[0] if args else kwargs.get("pixel_values")

    def enter(layer: int) -> Any:
        # torch may call a hook that another thread is removing without the keywords it was registered for.
        @untraced
        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
            if active() is reading and kwargs is not None:
                found[layer] = args[0] if args else kwargs["hidden_states"]

        return record

    @untraced
    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if active() is reading:
            found[len(encoder.layers)] = output if isinstance(output, Tensor) else output[0]

    try:
        handles.append(encoder.tower.register_forward_pre_hook(called, with_kwargs=True))
        for layer in encoder.states:
            if layer < len(encoder.layers):
                handles.append(encoder.layers[layer].register_forward_pre_hook(enter(layer), with_kwargs=True))
            else:
                handles.append(encoder.layers[-1].register_forward_hook(leave))
        yield found
    finally:
        for handle in handles:
            handle.remove()


def by_patch(encoder: Encoder, states: dict[int, Tensor]) -> Tensor:
    """(n, N, d) recorded states of the patches, side by side."""
    both = torch.cat([states[layer] for layer in encoder.states], -1)
    return both if encoder.cls is None else both[:, 1:]
