"""Whether a caller has hooked something on the encoder's parts, or put something in their place.

The encoder is then run as it is: parts that nobody uses are not left out, and everything is projected.
"""

from typing import Any

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
    # Every call asks this of some 300 modules: no generators, no copies.
    waiting = [part for name, part in core.named_children() if name != "language_model"]
    while waiting:
        module = waiting.pop()
        if _altered(module):
            return True
        waiting += [child for child in module._modules.values() if child is not None]
    return False


def _altered(module: nn.Module) -> bool:
    """Whether a module has a hook of the caller's, or a `forward` of its own."""
    held = module.__dict__
    if "forward" in held and "_hf_hook" not in held:
        return True
    if not (held["_forward_hooks"] or held["_forward_pre_hooks"]):
        return False
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return any(not _module_of(hook).startswith(_OURS) for hook in hooks)


def _module_of(hook: Any) -> str:
    """The name of the module that a hook was written in."""
    hook = getattr(hook, "func", hook)  # functools.partial
    return str(getattr(hook, "__module__", None) or type(hook).__module__)
