"""Drawing what was kept: the picture that `hired view` writes."""

from hired.viz.figure import draw

__all__ = ["draw"]
