"""What `hired.enable` lays over an instance, and takes off again, whatever others have laid over it meanwhile."""

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

from hired.errors import HiredError

CALLS = ("generate", "forward")

Inside = Callable[[Callable[..., Any], dict[str, Any]], Any]
"""From the method that is shadowed and a call's arguments by name to what the call gives."""


class Shadows:
    """Shadows of a model's methods: attributes of the instance, bound to it, which others may wrap or replace.

    A shadow that was wrapped stays where it is when it is taken off, and lets calls through from then on. Copies of the
    model, by `copy` or `pickle`, have none of it.
    """

    def __init__(self, model: Any, inside: Mapping[str, Inside], passes: bool) -> None:
        """Lays shadows over a model.

        Args:
            model: the model.
            inside: what happens in place of each method.
            passes: nothing happens: every call goes on as it came.
        """
        self.model, self.on, self._passes = model, True, passes
        self._thread = threading.local()
        self._before = {name: vars(model)[name] for name in CALLS if name in vars(model)}
        self._originals = {
            name: self._before.get(name, MethodType(getattr(type(model), name), model)) for name in CALLS
        }
        self._made: dict[str, Any] = {name: MethodType(self._shadow(name, inside[name]), model) for name in CALLS}
        self._made |= {"__reduce_ex__": self._reduce_ex, "_replicate_for_data_parallel": self._replicate}
        for name, shadow in self._made.items():
            setattr(model, name, shadow)
        self._hook = model.register_forward_pre_hook(
            functools.partial(self._before_forward, inside["forward"]), with_kwargs=True
        )

    def remove(self) -> None:
        """Takes off what is ours, and puts back what was there. What others have laid over it stays."""
        self.on = False
        self._hook.remove()
        for name in self._made:
            if not self._ours(vars(self.model), name):
                continue
            if name in self._before:
                setattr(self.model, name, self._before[name])
            else:
                delattr(self.model, name)

    def _ours(self, held: dict[str, Any], name: str) -> bool:
        """Whether what an instance holds under a name is our shadow; unwrapping may have bound it anew."""
        shadow = self._made[name]
        return held.get(name) is shadow or getattr(held.get(name), "__func__", None) is getattr(shadow, "__func__", 0)

    def _shadow(self, name: str, inside: Inside) -> Callable[..., Any]:
        """A function in place of the class's own."""

        @functools.wraps(getattr(type(self.model), name))
        def shadow(instance: Any, *args: Any, **kwargs: Any) -> Any:
            if instance is not self.model:  # a copy that was bound to it by others
                return getattr(type(instance), name)(instance, *args, **kwargs)
            original = self._originals[name]
            if self._lets_through(kwargs):
                return original(*args, **kwargs)
            return inside(self._guarded(original), by_name(self.model, name, args, kwargs))

        return shadow

    def _lets_through(self, kwargs: dict[str, Any]) -> bool:
        """Whether a call is left alone: nothing is to be done, or it comes from a call that has been shortened."""
        inside = getattr(self._thread, "inside", False) and kwargs.get("pixel_values") is None
        return not self.on or self._passes or inside

    def _guarded(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The method, during which this thread's calls are let through: what it calls has been shortened."""

        def call(**arguments: Any) -> Any:
            before = getattr(self._thread, "inside", False)
            self._thread.inside = True
            try:
                return original(**arguments)
            finally:
                self._thread.inside = before

        return call

    def _before_forward(self, inside: Inside, model: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A hook for the case that somebody has replaced `forward`: then the call is shortened here."""
        if self._lets_through(kwargs) or model is not self.model or self._ours(vars(self.model), "forward"):
            return None
        return inside(lambda **call: ((), call), by_name(self.model, "forward", args, kwargs))

    def _reduce_ex(self, protocol: Any) -> Any:
        """What copies and pickles are made of: the model without us."""
        kind: Any = type(self.model)
        make, arguments, state, *others = kind.__reduce_ex__(self.model, protocol)
        state = {name: value for name, value in state.items() if not (name in self._made and self._ours(state, name))}
        state |= {name: value for name, value in self._before.items() if name not in state}
        for name in ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"):
            state[name] = type(state[name])((key, hook) for key, hook in state[name].items() if key != self._hook.id)
        return make, arguments, state, *others

    def _replicate(self) -> Any:
        """What `torch.nn.DataParallel` makes for every GPU at every call."""
        if not self._passes:
            raise HiredError(
                "torch.nn.DataParallel copies a model at every call, where hired.enable does not reach: use"
                " DistributedDataParallel, or hired.reduce"
            )
        replica = type(self.model)._replicate_for_data_parallel(self.model)
        for name in self._made:
            if self._ours(vars(replica), name):
                vars(replica).pop(name)
        vars(replica).update(self._before)
        return replica


def enabled(model: Any) -> bool:
    """Whether an instance has shadows that are not taken off."""
    holder = getattr(vars(model).get("__reduce_ex__"), "__self__", None)
    return isinstance(holder, Shadows) and holder.model is model


def by_name(model: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments by their names in the model's method; in a PEFT wrapper by those in the model inside."""
    signature = inspect.signature(getattr(type(model), name))
    if args and any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values()):
        unwrap = getattr(model, "get_base_model", None)
        signature = inspect.signature(getattr(type(unwrap() if callable(unwrap) else model), name))
    rest = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
    arguments = dict(signature.bind(model, *args, **kwargs).arguments)
    arguments.pop(next(iter(signature.parameters)), None)
    arguments.update(arguments.pop(rest, {}) if rest else {})
    return arguments
