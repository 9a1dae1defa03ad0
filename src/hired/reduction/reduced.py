"""What `hired.reduce` returns."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple
from weakref import ref

from torch import Tensor
from transformers import BatchFeature

from hired.core.image import Attention
from hired.core.layout import Layout
from hired.core.transfer import host_by_default
from hired.reduction.selection import Counts, ImageSelection

ENCODER_OUTPUTS = "mm_encoder_outputs"


class Report(NamedTuple):
    """What `.selection` is worked out from, one entry an image each."""

    layouts: list[Layout]
    kept: list[Tensor | None]
    attention: list[Attention]


class ReducedInputs(BatchFeature):  # type: ignore[misc]
    """Inputs for `model.generate(**inputs)` and `model(**inputs)`, any number of times.

    A `BatchFeature` like the processor's, with the image features in `mm_encoder_outputs` in place of pixels. Where
    nothing is dropped it holds what the caller gave.

    Args:
        data: the entries.
        report: what `.selection` is worked out from, or a function that tells it.
        model: what they were reduced for; it is not kept alive.
    """

    def __init__(
        self, data: dict[str, Any], report: Report | Callable[[], Report] | None = None, model: Any = None
    ) -> None:
        super().__init__(data)
        self._report = report
        self._model = None if model is None else ref(model)

    def __getitem__(self, item: Any) -> Any:
        """The entry; encoder outputs come as a fresh copy, because beam search changes those it is given."""
        value = super().__getitem__(item)
        if item != ENCODER_OUTPUTS or not isinstance(value, Mapping):
            return value
        return {
            modality: type(output)(**output) if isinstance(output, Mapping) else output
            for modality, output in value.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: the base class knows of its `data` only. They hold no model."""
        return {**super().__getstate__(), "report": self._told()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The other way round."""
        super().__setstate__(state)
        self._report = state["report"]
        self._model = None

    def __or__(self, other: Any) -> "ReducedInputs":
        """Both mappings' entries, the other's where both have one, and this selection."""
        return self._with(dict(self.data) | dict(other)) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> "ReducedInputs":
        """The same the other way round."""
        return self._with(dict(other) | dict(self.data)) if isinstance(other, Mapping) else NotImplemented

    def copy(self) -> "ReducedInputs":
        """A copy that shares its tensors, with the selection."""
        return self._with(dict(self.data))

    def _with(self, data: dict[str, Any]) -> "ReducedInputs":
        return type(self)(data, self._report, self.model)

    def to(self, *args: Any, **kwargs: Any) -> "ReducedInputs":
        """Moves (and casts floating point) tensors in place, the features among them, like `BatchFeature.to`."""
        outputs = self.data.pop(ENCODER_OUTPUTS, None)
        super().to(*args, **kwargs)
        if outputs is not None:
            for output in outputs.values():
                for name, value in output.items():
                    output[name] = _move(value, args, kwargs)
            self.data[ENCODER_OUTPUTS] = outputs
        return self

    @property
    def model(self) -> Any:
        """The model that they were reduced for; None where it is gone, and for what comes out of a pickle."""
        return None if self._model is None else self._model()

    @cached_property
    def selection(self) -> list[ImageSelection]:
        """What was kept, one entry an image; worked out on first use.

        Empty for a batch without pictures, and for inputs that stay as they are and do not tell how their pictures
        were cut.
        """
        report = self._told()
        with host_by_default():
            return [] if report is None else [ImageSelection.of(*parts) for parts in zip(*report, strict=True)]

    @property
    def counts(self) -> Counts:
        """What `.selection` adds up to, from the shapes of tensors: no device is waited for."""
        report = self._told()
        if report is None:
            return Counts()
        full = [layout.tokens_full for layout in report.layouts]
        kept = [all_ if rows is None else rows.numel() for all_, rows in zip(full, report.kept, strict=True)]
        return Counts(len(full), sum(full), sum(kept))

    def _told(self) -> Report | None:
        if callable(self._report):
            self._report = self._report()
        return self._report


def _move(features: Any, args: Any, kwargs: Any) -> Any:
    if isinstance(features, Tensor):
        return features.to(*args, **kwargs)
    return [feature.to(*args, **kwargs) for feature in features]
