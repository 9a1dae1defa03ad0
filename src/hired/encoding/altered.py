"""Whether a caller has hooked something on the encoder's parts, or put something in their place.

The encoder is then run as it is: parts that nobody uses are not left out, and everything is projected.
"""

from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from hired.families.base import core_model

_OURS = ("hired.", "transformers.", "accelerate.")
"""Modules of hooks that do not mind: transformers records outputs and accelerate moves weights with them."""

_METHODS = ("get_image_features", "pack_image_features")


def altered(model: Any) -> bool:
    """Whether a method that gives a picture's features, or a module on the way, is not transformers' own.

    Looks at forward hooks, instances' own `forward`, and methods that an instance or a subclass replaces.

    Args:
        model: the model, of a family that is `tokenwise`.
    """
    core = core_model(model)
    for name in _METHODS:
        for holder in (model, core):
            method = getattr(holder, name, None)
            if method is not None and not getattr(method, "__module__", "").startswith("transformers."):
                return True
    parts = _known.get(core)
    found = None if parts is None else _look(parts)
    if found is None:
        parts = _known[core] = _parts(core)
        found = _look(parts)
    return bool(found)


_Part = tuple[dict[str, Any], dict[str, Any], list[Any]]
"""What a module holds, its children by name, and what these were when they were looked up."""

_known: "WeakKeyDictionary[nn.Module, list[_Part]]" = WeakKeyDictionary()
"""The parts of every model asked about: every call asks this of some 300 modules, and walking them takes longer."""


def _parts(core: nn.Module) -> list[_Part]:
    """The core, and every module below it but the language model's."""
    # Of the core itself no more than its children: what is kept here must not keep the core alive.
    found: list[_Part] = [({"_forward_hooks": {}, "_forward_pre_hooks": {}}, core._modules, [*core._modules.values()])]
    waiting = [part for name, part in core.named_children() if name != "language_model"]
    while waiting:
        module = waiting.pop()
        found.append((vars(module), module._modules, [*module._modules.values()]))
        waiting += module.children()
    return found


def _look(parts: list[_Part]) -> bool | None:
    """Whether one of the parts has a hook of the caller's, or a `forward` of its own; None where modules have been put
    in, out, or in another's place since the parts were looked up.
    """
    found = False
    for held, children, known in parts:
        if (children or known) and [*children.values()] != known:
            return None
        if "forward" in held and "_hf_hook" not in held:
            found = True
        elif (held["_forward_hooks"] or held["_forward_pre_hooks"]) and not found:
            hooks = (*held["_forward_hooks"].values(), *held["_forward_pre_hooks"].values())
            found = any(not _module_of(hook).startswith(_OURS) for hook in hooks)
    return found


def _module_of(hook: Any) -> str:
    """The name of the module that a hook was written in."""
    hook = getattr(hook, "func", hook)  # functools.partial
    return str(getattr(hook, "__module__", None) or type(hook).__module__)
