"""Layouts that are made once for each size of picture: working one out takes longer than the choice of its tokens."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch

from hired.core.layout import Layout

MOST = 256
"""Layouts kept; one of a large picture holds 100 KB."""


def own_packer(model: Any) -> Any:
    """The function by which a model packs features, None where it is not transformers' own: it may do anything."""
    packer = getattr(model.pack_image_features, "__func__", None)
    return packer if str(getattr(packer, "__module__", "")).startswith("transformers.") else None


class Remembered:
    """The layouts last asked for, by all the facts that they follow from. For several threads."""

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, Layout] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, facts: Hashable, make: Callable[[], Layout]) -> Layout:
        """The layout of these facts, made now if it is not known. Nobody may change its tensors."""
        with self._lock:
            if facts in self._made:
                self._made.move_to_end(facts)
                return self._made[facts]
        with torch.inference_mode(False):  # others may need gradients of what is looked up with it
            layout = make()
        with self._lock:
            self._made[facts] = layout
            if len(self._made) > MOST:
                self._made.popitem(last=False)
        return layout
