"""Whether the choice can be made by the kernels of `hired.core.kernels`."""

from functools import cache
from types import ModuleType

from hired.core.layout import Layout


def kernels_for(layout: Layout) -> ModuleType | None:
    """The kernels, where a picture's layout is on a CUDA device, they are made for it, and Triton is installed.

    Otherwise None, and tensors are what the choice is made with.
    """
    if layout.partition.device.type != "cuda":
        return None
    kernels = _kernels()
    return kernels if kernels is not None and kernels.fits(layout) else None


@cache
def _kernels() -> ModuleType | None:
    try:
        from hired.core import kernels
    except ImportError:
        return None
    return kernels
