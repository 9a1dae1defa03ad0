"""The selection of the authors' published code, to compare with: see `hired.core.published`."""

from hired.core.published import select

__all__ = ["select"]
