"""Where every visual token of a picture comes from, from the model's configuration and the picture's size alone."""

import copy
import math
import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

from hired.core.budget import Budget, floor_share
from hired.core.layout import Layout
from hired.costs.shapes import meta_model
from hired.costs.tokens import image_layouts
from hired.errors import UnsupportedModelError
from hired.families import family_for
from hired.families.base import Family, Limits, Size

_NARROWEST = 200
"""Processors that keep a picture's resolution refuse one whose longer side is longer than this many shorter ones."""

_known: dict[tuple[str, Limits | None], "Geometry"] = {}
"""What `geometry_of` has made, by the text of the configuration and the limits."""


def geometry_of(config: Any, limits: Limits | None = None) -> "Geometry":
    """The geometry of a transformers configuration, made once: vLLM asks anew for every request.

    Args:
        config: the configuration.
        limits: those of the model's processor, where its family is `limited`.

    Raises:
        UnsupportedModelError: as `Geometry`.
    """
    key = (config.to_json_string(use_diff=False), limits)
    if key not in _known:
        limited = family_for(config.model_type, _name(config)).limited
        _known[key] = (Geometry if limited is None else _LIMITED[limited])(config, limits)
    return _known[key]


class Geometry:
    """The layouts of one model's pictures, found by the library's own family on a model without weights.

    Attributes:
        family: the family's facts.
        encoder: the parts of the encoder; only its indices mean anything here.
        image_token: id of the placeholder of one visual token.
        limits: those of the model's processor; None where the family has none.
    """

    def __init__(self, config: Any, limits: Limits | None = None) -> None:
        """Reads a transformers configuration.

        Raises:
            UnsupportedModelError: a model of no known family, an encoder its family does not know, or no limits where
                the family wants them.
        """
        self.family = family_for(config.model_type, _name(config))
        if limits is None and self.family.limited is not None:
            raise UnsupportedModelError(
                f"how {self.family.name} sees pictures is not known without the checkpoint's image processor, which"
                f" tells the fewest and the most {self.family.limited}"
            )
        # Building a model writes into its configuration, which others read.
        self.limits, self._config, self._model = limits, config, meta_model(copy.deepcopy(config))
        self.encoder = self.family.parts(self._model)
        self.image_token = self.family.image_token(self._model)
        self.layout = lru_cache(maxsize=1024)(self._layout)

    def under(self, limits: Limits | None) -> "Geometry":
        """The same model's under other limits; itself where it has none."""
        return self if limits == self.limits or self.limits is None else geometry_of(self._config, limits)

    @cached_property
    def largest_size(self) -> Size:
        """(width, height) of a picture with the most partitions, and of those one with the most visual tokens."""
        grids = self._grids()
        most = max(rows * columns for rows, columns in grids)
        side = self._side
        sizes = [(columns * side, rows * side) for rows, columns in grids if rows * columns == most]
        return max(sizes, key=lambda size: self.layout(*size).tokens_full)

    @property
    def largest(self) -> Layout:
        """The layout of that picture."""
        return self.layout(*self.largest_size)

    def limit(self, budget: Budget) -> int:
        """Visual tokens that no picture can keep more of under a budget."""
        largest, config = self.largest, self._model.config
        full, cells = largest.tokens_full, largest.cells_per_partition
        resampled = re.fullmatch(r"anyres_max_(\d+)", str(getattr(config, "vision_aspect_ratio", "")))
        if resampled is not None:
            # Up to 1.1 x 1.1 times this many sub-images are packed as they are; a newline ends each row.
            tiles = min(1.1**2 * int(resampled[1]), largest.partitions - 1)
            full = cells + math.ceil(tiles * cells) + max(rows for rows, _ in self._grids()) * largest.cells[0]
        if budget.tokens is not None:
            return min(budget.tokens, full)
        share = budget.share or 1
        return full if share == 1 else min(floor_share(share, largest.partitions * cells), full)

    def _grids(self) -> list[tuple[int, int]]:
        """(rows, columns) of sub-images that a picture may be cut into."""
        side = self._side
        points = getattr(self._model.config, "image_grid_pinpoints", None)
        return [(height // side, width // side) for height, width in points or [(side, side)]]

    @property
    def _side(self) -> int:
        """Pixels along the side of a partition."""
        side = self._model.config.vision_config.image_size
        return int(side if isinstance(side, int) else side[0])

    def _layout(self, width: int, height: int) -> Layout:
        """The layout of a picture of this size in pixels, tensors on the CPU; recent ones are remembered."""
        return image_layouts(self._model, [(width, height)], self.limits)[0]


class NativeGeometry(Geometry):
    """Of a model that sees pictures at their own resolution, as one partition; its limits are pixels."""

    @cached_property
    def largest_size(self) -> Size:
        """(width, height) of a picture with the most visual tokens, as near to a square as their number allows."""
        vision, (_, most) = self._model.config.vision_config, self.limits or (0, 0)
        side = int(vision.patch_size * vision.spatial_merge_size)
        shapes = ((tokens // _factor(tokens), _factor(tokens)) for tokens in range(max(most // side**2, 1), 0, -1))
        columns, rows = next(shape for shape in shapes if shape[0] <= _NARROWEST * shape[1])
        return columns * side, rows * side


class TiledGeometry(Geometry):
    """Of a model whose processor cuts a picture into any grid of so many tiles."""

    def _grids(self) -> list[tuple[int, int]]:
        fewest, most = self.limits or (1, 1)
        sides = range(1, most + 1)
        return [(rows, columns) for rows in sides for columns in sides if fewest <= rows * columns <= most]


_LIMITED: dict[str, type[Geometry]] = {"pixels": NativeGeometry, "tiles": TiledGeometry}


def limits_of(family: Family, processor: Any, *options: Mapping[str, Any]) -> Limits | None:
    """The limits of a model's pictures; None where its family is not `limited`.

    Args:
        family: the family.
        processor: the checkpoint's image processor.
        options: `mm_processor_kwargs`, later ones in force before earlier ones and the processor's own values; those in
            their `images_kwargs` go before the others.
    """
    layers = [part for each in options for part in (each, each.get("images_kwargs") or {})]
    if family.limited is None:
        return None
    if family.limited == "tiles":
        names = ("crop_to_patches", "min_patches", "max_patches")
        own = {name: getattr(processor, name) for name in names}
        for layer in layers:
            own |= {name: layer[name] for name in names if layer.get(name) is not None}
        return (int(own["min_patches"]), int(own["max_patches"])) if own["crop_to_patches"] else (1, 1)
    size = dict(processor.size)  # edges by name, but numbers of pixels
    for layer in layers:
        size |= layer.get("size") or {}
        for edge, name in (("shortest_edge", "min_pixels"), ("longest_edge", "max_pixels")):
            size[edge] = layer.get(name) or size[edge]
    return int(size["shortest_edge"]), int(size["longest_edge"])


def _factor(number: int) -> int:
    """The largest divisor of a number that is not above its square root."""
    return next(factor for factor in range(math.isqrt(number), 0, -1) if number % factor == 0)


def _name(config: Any) -> str:
    return str((getattr(config, "architectures", None) or [type(config).__name__])[0])
