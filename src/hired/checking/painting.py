"""Paint one cell of a picture: is the kept token that is said to show it the one that changes?

The token's feature, and the encoder's keys of which its score is made, must change most where the cell was painted. A
trained encoder tells every patch of a change anywhere: for the time of a run its attention is damped, by hooks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

import hired
from hired import prompts
from hired.checking.pictures import Box, painted, structured
from hired.core.layout import Layout
from hired.encoding.taps import Tap, tapping
from hired.families import Encoder
from hired.reduction import Token, encode, plan

__all__ = ["moved"]

_BUDGET = 0.2
_TOKENS = 4
_DAMPING = 0.02
_EDGE = 0.15
"""Share of a cell at each of its edges that stays unpainted, as resizing spreads what is painted."""
_AREA = 0.45
"""Share of a whole cell that a token must show: one at the picture's edge may be mostly padding."""


@dataclass(frozen=True)
class _Seen:
    """What the encoder makes of a picture: (T, ...) features, and of each of the T tokens its keys, (T, channels)."""

    layout: Layout
    features: Tensor
    keys: list[Tensor]
    scores: Any


def moved(model: Any, processor: Any, size: tuple[int, int]) -> list[bool]:
    """For each of up to four kept tokens of a picture: whether it is the one that changes when its cell is painted.

    Args:
        model: A supported model, in eval mode.
        processor: Its processor.
        size: (width, height) of the picture in pixels.

    Raises:
        HiredError: The model does not take such a picture.
    """
    pixels = structured(size)
    image = Image.fromarray(pixels)
    with torch.inference_mode():
        kept = hired.reduce(model, _inputs(model, processor, image), _BUDGET, images=[image]).selection[0].tokens
        still = _seen(model, processor, image)
        wide = [token for token in kept if _wide(token, still.layout)]
        result = []
        for token in (wide[place * len(wide) // _TOKENS] for place in range(min(_TOKENS, len(wide)))):
            if token.box is not None:
                changed = Image.fromarray(painted(pixels, _inner(token.box)))
                result.append(_changes(token, still, _seen(model, processor, changed)))
        return result


def _inputs(model: Any, processor: Any, image: Image.Image) -> Any:
    return prompts.inputs(model, processor, [prompts.prompt(processor, "What is shown?")], [image])


def _wide(token: Token, layout: Layout) -> bool:
    """Whether a token shows a part of the picture about as large as its cell."""
    if token.box is None or token.partition is None:
        return False
    (x0, y0, x1, y1), whole = token.box, layout.boxes[token.partition]
    rows, columns = layout.cells_of(token.partition)
    return (x1 - x0) * (y1 - y0) * rows * columns > _AREA * (whole[2] - whole[0]) * (whole[3] - whole[1])


def _inner(box: Box) -> Box:
    """The middle of a cell, at least a pixel."""
    x0, y0, x1, y1 = box
    across, down = _EDGE * (x1 - x0), _EDGE * (y1 - y0)
    x0, y0 = round(x0 + across), round(y0 + down)
    return x0, y0, max(x0 + 1, round(x1 - across)), max(y0 + 1, round(y1 - down))


def _seen(model: Any, processor: Any, image: Image.Image) -> _Seen:
    """Runs the encoder, damped."""
    made = plan(model, _inputs(model, processor, image), _BUDGET, images=[image])
    encoder = made.encoder
    if encoder is None:
        raise RuntimeError("the plan of a picture that loses tokens has no encoder")
    tap = Tap(encoder.attention(encoder.last), None, keys=True)
    with tapping(encoder.tower, [tap]), _damped(encoder):
        features = encode(replace(made, encoder=None), everything=True).features

    def scores(rows: list[Tensor]) -> Tensor:
        pooled = made.family.last_rows(rows, encoder, made.layouts)[0]
        return made.layouts[0].of_tokens(pooled.sum(1).cpu())

    return _Seen(made.layouts[0], (features or [])[0].flatten(1).float().cpu(), tap.rows, scores)


def _changes(token: Token, still: _Seen, other: _Seen) -> bool:
    """Whether feature and keys changed most at a token, of all in its partition."""
    elsewhere = still.layout.partition != token.partition
    features = (other.features - still.features).norm(dim=-1)
    keys = [(one - before).norm(dim=-2) for one, before in zip(other.keys, still.keys, strict=True)]
    places = [int(change.masked_fill(elsewhere, -1).argmax()) for change in (features, still.scores(keys))]
    return places == [token.row] * 2 and float(features[token.row]) > 0


@contextmanager
def _damped(encoder: Encoder) -> Iterator[None]:
    """What attention adds is made small in every layer, for the time of the block."""

    def less(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return output * _DAMPING
        return (output[0] * _DAMPING, *output[1:])

    layers: Sequence[int] = range(len(encoder.layers))
    handles = [encoder.attention(layer).register_forward_hook(less) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
