"""Errors that HiRED raises on purpose. Every one derives from `HiredError` and says what to do."""


class HiredError(Exception):
    """Base class of every error this library raises on purpose."""


class BudgetError(HiredError, ValueError):
    """A budget, `alpha` or another setting is out of its range, or leaves no token."""


class UnsupportedModelError(HiredError, TypeError):
    """The model, or its vision encoder, is of a kind HiRED does not know."""


class InputsError(HiredError, ValueError):
    """The processor's output does not fit the model or itself (placeholders, sizes, videos)."""


class ImageError(HiredError, ValueError):
    """A picture cannot be read: missing, broken, empty or too large."""


class ModelLoadError(HiredError, OSError):
    """A model, or a device or dtype for it, cannot be had; or a checkpoint is not whole."""


class MissingDependencyError(HiredError, ImportError):
    """An optional dependency is needed; the message names it, and the extra that brings it."""
