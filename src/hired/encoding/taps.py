"""Reading single rows of a vision encoder's attention while it runs, whatever attention kernel is in force.

Every transformers encoder looks its attention function up by name for each call. A function registered here
delegates to the implementation in force, and for the tapped layers also computes softmax(q k^T * scaling) for
the one query row that is wanted: O(N d) a layer, and no second pass. The encoder's configuration names this
function only while at least one tapped call is running, and what the function does is decided per call and per
thread by a context variable. The same function serves partitions that `hired.encoding.run` has packed.
"""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from hired.encoding.packed import Packed

_PREFIX = "hired_tap_"


@dataclass
class Tap:
    """One layer to read.

    Attributes:
        module: the layer's attention module.
        query: index of the query token whose row is read (the CLS token).
        items: (K,) int64 indices into the encoder's batch to read, None for all.
        rows: what was read, one (items, heads, keys) float32 tensor for every call of the layer.
    """

    module: nn.Module
    query: int
    items: Tensor | None = None
    rows: list[Tensor] = field(default_factory=list)

    def read(self, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None) -> None:
        """Adds the row of `query` (batch, heads, queries, d) over `key` (batch, heads, keys, d)."""
        q = query[:, :, self.query]
        if self.items is not None:
            items = self.items.to(q.device)
            q, key = q[items], key[items]
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        logits = torch.matmul(key.float(), q.float()[..., None])[..., 0] * scale
        if mask is not None and mask.dim() == 4:
            row = mask[:, :, self.query if mask.shape[2] > 1 else 0]
            row = row if self.items is None or row.shape[0] == 1 else row[self.items.to(row.device)]
            logits = logits.masked_fill(~row, -torch.inf) if row.dtype == torch.bool else logits + row
        self.rows.append(logits.softmax(-1))


@dataclass
class Reading:
    """What the registered attention function does in one tapped call.

    Attributes:
        taps: the taps of each attention module, by id of the module.
        packed: how partitions of unlike length stand in one sequence, None while they are a plain batch.
    """

    taps: dict[int, list[Tap]]
    packed: Packed | None = None


_active: ContextVar[Reading | None] = ContextVar("hired_taps", default=None)
_lock = threading.Lock()


def active() -> Reading | None:
    """The tapped call that this thread is in."""
    return _active.get()


_users: dict[int, tuple[int, str]] = {}
"""By id of an encoder's configuration: how many calls are tapping it, and the implementation to go back to."""


def _delegate(name: str, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The attention function that `name` means to `module`; "eager" lives beside the module's class."""
    if name == "eager":
        eager: Callable[..., tuple[Tensor, Tensor | None]] = vars(inspect.getmodule(type(module)))[
            "eager_attention_forward"
        ]
        return eager
    function: Callable[..., tuple[Tensor, Tensor | None]] = AttentionInterface()[name]
    return function


def _register(name: str) -> str:
    """Registers the tapping counterpart of the implementation `name`, mask included, and returns its name."""
    tapped = _PREFIX + name.replace("/", "_")  # "flash" stays in the name: transformers looks for it
    if tapped in AttentionInterface():
        return tapped

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        reading = _active.get()
        if reading is None:
            return _delegate(name, module)(module, query, key, value, attention_mask, **kwargs)
        taps, packed, scaling = reading.taps.get(id(module), ()), reading.packed, kwargs.get("scaling")
        if packed is None:
            for tap in taps:
                tap.read(query, key, attention_mask, scaling)
            return _delegate(name, module)(module, query, key, value, attention_mask, **kwargs)
        query, key, value = (packed.unpack(part) for part in (query, key, value))
        for tap in taps:
            tap.read(query, key, packed.mask, scaling)
        return packed.attend(query, key, value, scaling), None

    masks = AttentionMaskInterface()
    if name in masks:  # a name without a mask function would get no mask at all
        AttentionMaskInterface.register(tapped, masks[name])
    AttentionInterface.register(tapped, attend)
    return tapped


def _enter(tower: Any) -> None:
    with _lock:
        count, original = _users.get(id(tower.config), (0, tower.config._attn_implementation))
        if count == 0:
            tower.set_attn_implementation(_register(original or "sdpa"))
        _users[id(tower.config)] = (count + 1, original)


def _leave(tower: Any) -> None:
    with _lock:
        count, original = _users.pop(id(tower.config))
        if count > 1:
            _users[id(tower.config)] = (count - 1, original)
        else:
            tower.set_attn_implementation(original)


@contextmanager
def tapping(tower: Any, taps: list[Tap]) -> Iterator[Reading]:
    """While the block runs, calls of `tower` made by this thread fill `taps`; afterwards it is as it was.

    Args:
        tower: the encoder, a `PreTrainedModel`. Other threads may use it, tapped or not, at the same time.
        taps: the layers to read.
    """
    _enter(tower)
    reading = Reading({})
    for tap in taps:  # two taps may read one layer, where the initial layer is the one used
        reading.taps.setdefault(id(tap.module), []).append(tap)
    token = _active.set(reading)
    try:
        yield reading
    finally:
        _active.reset(token)
        _leave(tower)
