"""Reading a vision encoder's attention while it runs, whatever attention kernel is in force.

Every transformers encoder looks its attention function up by name for each call. A function registered here
delegates to the implementation in force, and for the tapped layers also computes softmax(q k^T * scaling): for
the CLS token's query row alone, O(N d) a layer, or, in encoders without one, for all queries and averaged,
O(N^2 d) in the two tapped layers of some 27. There is no second pass. The encoder's configuration names this
function only while at least one tapped call is running, and what the function does is decided per call and per
thread by a context variable. The same function serves partitions that `hired.encoding.run` has packed.
"""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from hired.compiling import untraced
from hired.encoding.packed import Packed

_PREFIX = "hired_tap_"


@dataclass
class Tap:
    """One layer to read.

    Attributes:
        module: the layer's attention module.
        query: index of the query token whose row is read (the CLS token); None for the attention that every token
            receives, averaged over all queries.
        items: (K,) int64 indices into the encoder's batch to read, or a slice of it; None for all.
        keys: read the keys themselves in place of attention.
        rows: what was read, one (items, heads, keys) float32 tensor for every call of the layer; (items, heads, d,
            keys) of the keys themselves.
    """

    module: nn.Module
    query: int | None
    items: Tensor | slice | None = None
    keys: bool = False
    rows: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def read(
        self, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None, edges: list[int] | None = None
    ) -> None:
        """Adds the row of `query` (batch, heads, queries, d) over `key` (batch, heads, keys, d).

        `edges`, where flash attention gets several sequences in one: where each starts, and the end. They are read one
        by one.
        """
        if self.keys:
            self.rows.append(self._taken(key).float().transpose(-1, -2))
            return
        if edges is not None:
            for start, end in pairwise(edges):
                self.read(query[:, :, start:end], key[:, :, start:end], mask, scaling)
            return
        if self.query is None:
            whole = mask is None or mask.shape[0] == 1
            chosen = mask if whole else self._taken(mask)  # type: ignore[arg-type]
            self.rows.append(received(self._taken(query), self._taken(key), chosen, scaling))
            return
        q, key = self._taken(query[:, :, self.query]), self._taken(key)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        logits = torch.matmul(key.float(), q.float()[..., None])[..., 0] * scale
        if mask is not None and mask.dim() == 4:
            row = mask[:, :, self.query if mask.shape[2] > 1 else 0]
            row = row if row.shape[0] == 1 else self._taken(row)
            logits = logits.masked_fill(~row, -torch.inf) if row.dtype == torch.bool else logits + row
        self.rows.append(logits.softmax(-1))

    def _taken(self, batch: Tensor) -> Tensor:
        """What belongs to `items`, of a whole batch."""
        if self.items is None:
            return batch
        return batch[self.items if isinstance(self.items, slice) else self.items.to(batch.device)]


_BLOCK = 2**22
"""Attention weights that `received` holds at once: 16 MB in float32, once before and once after the softmax."""


@torch.no_grad()
def received(query: Tensor, key: Tensor, mask: Tensor | None = None, scaling: float | None = None) -> Tensor:
    """The attention that each token of a self-attention layer receives, averaged over the queries.

    The stand-in for a CLS token's row in encoders without one. Costs O(N^2 d), as the layer's own attention, in blocks
    of queries, so that the memory does not grow with N^2. Not differentiable.

    Args:
        query, key: (batch, heads, N, d), after rotary embeddings and norms.
        mask: what the layer was given: (batch or 1, heads or 1, N or 1, N), True or 0 where attention is allowed; None
            for everywhere. Queries that may not see themselves are padding and do not count.
        scaling: factor on q k^T, None for d ** -0.5.

    Returns:
        (batch, heads, N) float32 that sum to 1 over N.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    keys = key.float().transpose(-1, -2)
    queries = query.shape[2]
    step = max(1, _BLOCK // max(keys[:, :, 0].numel(), 1))
    if mask is not None and mask.dim() != 4:  # flash attention's (batch, N) mask
        mask = mask[:, None, None].bool()
    total, count = keys.new_zeros(keys[:, :, 0].shape), keys.new_full((1, 1, 1), float(queries))
    if mask is not None:
        seen = mask[:, :, 0] if mask.shape[2] == 1 else mask.diagonal(dim1=2, dim2=3)
        counted = seen if seen.dtype == torch.bool else seen > torch.finfo(seen.dtype).min / 2
        count = counted.sum(-1, keepdim=True).clamp(min=1).float()
    for start in range(0, queries, step):
        weights = torch.matmul(query[:, :, start : start + step].float(), keys).mul_(scale)
        if mask is None:
            total += weights.softmax(-1).sum(2)
            continue
        rows = mask if mask.shape[2] == 1 else mask[:, :, start : start + step]
        weights = weights.masked_fill_(~rows, -torch.inf) if rows.dtype == torch.bool else weights.add_(rows)
        total += weights.softmax(-1).masked_fill_(~counted[:, :, start : start + step, None], 0.0).sum(2)
    return total / count


@dataclass
class Reading:
    """What the registered attention function does in one tapped call.

    Attributes:
        taps: the taps of each attention module, by id of the module.
        packed: how partitions of unlike length stand in one sequence, None while they are a plain batch.
        ahead: while set, the next attention is read into it and not computed.
    """

    taps: dict[int, list[Tap]]
    packed: Packed | None = None
    ahead: Tap | None = None


class _Read(Exception):
    """Ends a layer once its queries and keys have been read."""


def look_ahead(reading: Reading, tap: Tap, layer: Callable[[], Any]) -> None:
    """Fills `tap` with what a layer would attend to: calls it, but ends it in front of its attention.

    Costs the layer's norm and its projections to queries, keys and values.
    """
    reading.ahead = tap
    try:
        layer()
    except _Read:
        pass
    finally:
        reading.ahead = None


_active: ContextVar[Reading | None] = ContextVar("hired_taps", default=None)
_lock = threading.Lock()


def active() -> Reading | None:
    """The tapped call that this thread is in."""
    return _active.get()


_users: dict[int, tuple[int, str]] = {}
"""By id of an encoder's configuration: how many calls are tapping it, and the implementation to go back to."""


_functions = AttentionInterface()


def _delegate(name: str, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The attention function that `name` means to `module`."""
    if name == "eager":
        return _eager(type(module).forward)
    function: Callable[..., tuple[Tensor, Tensor | None]] = _functions[name]
    return function


@cache
def _eager(forward: Any) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """What "eager" means to modules of a class: the function that their `forward` names."""
    forward = inspect.unwrap(forward)
    # Beside the module's class there may be two: Llama4's encoder has another one than its language model.
    eager = next(used for used in forward.__code__.co_names if used.endswith("eager_attention_forward"))
    found: Callable[..., tuple[Tensor, Tensor | None]] = forward.__globals__[eager]
    return found


def _register(name: str) -> str:
    """Registers the tapping counterpart of the implementation `name`, mask included, and returns its name."""
    tapped = _PREFIX + name.replace("/", "_")  # "flash" stays in the name: transformers looks for it
    if tapped in AttentionInterface():
        return tapped

    @untraced
    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        reading = _active.get()
        if reading is None:
            return _delegate(name, module)(module, query, key, value, attention_mask, **kwargs)
        if reading.ahead is not None:
            reading.ahead.read(query, key, attention_mask, kwargs.get("scaling"))
            raise _Read
        taps, packed, scaling = reading.taps.get(id(module), ()), reading.packed, kwargs.get("scaling")
        if packed is None:
            lengths = kwargs.get("cu_seq_lens_q") if taps else None
            edges = None if lengths is None else lengths.tolist()
            for tap in taps:
                tap.read(query, key, attention_mask, scaling, edges)
            return _delegate(name, module)(module, query, key, value, attention_mask, **kwargs)
        for tap in taps:
            tap.read(packed.whole.take(query), packed.whole.take(key), packed.whole.mask, scaling)
        return packed.attend(query, key, value, scaling), None

    masks = AttentionMaskInterface()
    if name in masks:  # a name without a mask function would get no mask at all
        AttentionMaskInterface.register(tapped, masks[name])
    AttentionInterface.register(tapped, attend)
    return tapped


_alone: "WeakKeyDictionary[nn.Module, tuple[Any, list[nn.Module]]]" = WeakKeyDictionary()
"""Towers of one configuration alone, with it and their children: `set_attn_implementation` looks at all of their
modules, which takes 1 ms."""


def _switch(tower: Any, name: str | None) -> None:
    """Names another attention function in a tower's configuration, as `set_attn_implementation` does."""
    if _alone.get(tower) == (tower.config, [*tower._modules.values()]):
        tower.config._attn_implementation = name
        return
    tower.set_attn_implementation(name)
    inside = [part for part in tower.modules() if isinstance(part, PreTrainedModel)]
    config = tower.config
    if config._attn_implementation == name and not config.sub_configs and all(p.config is config for p in inside):
        _alone[tower] = config, [*tower._modules.values()]


def _enter(tower: Any) -> None:
    with _lock:
        count, original = _users.get(id(tower.config), (0, tower.config._attn_implementation))
        if count == 0:
            _switch(tower, _register(original or "sdpa"))
        _users[id(tower.config)] = (count + 1, original)


def _leave(tower: Any) -> None:
    with _lock:
        count, original = _users.pop(id(tower.config))
        if count > 1:
            _users[id(tower.config)] = (count - 1, original)
        else:
            _switch(tower, original)


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
