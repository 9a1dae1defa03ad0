"""Whether a caller has hooked something on the encoder's parts, or put something in their place.

The encoder is then run as it is: parts that nobody uses are not left out, and everything is projected.
"""

from collections.abc import Iterator
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
    return any(_hooked(module) for part in _parts(core) for module in part.modules())


def _parts(core: Any) -> Iterator[nn.Module]:
    for name, part in core.named_children():
        if name != "language_model":
            yield part


def _hooked(module: nn.Module) -> bool:
    if "forward" in vars(module) and not hasattr(module, "_hf_hook"):
        return True
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values()) if _any_hooks(module) else ()
    return any(not _module_of(hook).startswith(_OURS) for hook in hooks)


def _any_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _module_of(hook: Any) -> str:
    """The name of the module that a hook was written in."""
    hook = getattr(hook, "func", hook)  # functools.partial
    return str(getattr(hook, "__module__", None) or type(hook).__module__)
