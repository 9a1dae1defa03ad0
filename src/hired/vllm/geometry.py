"""Where every visual token of a picture comes from, from the model's configuration and the picture's size alone."""

import math
import re
from functools import cached_property, lru_cache
from typing import Any

from hired.core.budget import Budget, floor_share
from hired.core.layout import Layout
from hired.costs.shapes import meta_model
from hired.costs.tokens import image_layouts
from hired.families import family_for
from hired.families.base import Size

_known: dict[str, "Geometry"] = {}
"""What `geometry_of` has made, by the text of the configuration."""


def geometry_of(config: Any) -> "Geometry":
    """The geometry of a transformers configuration, made once: vLLM asks anew for every request.

    Raises:
        UnsupportedModelError: as `Geometry`.
    """
    key = config.to_json_string(use_diff=False)
    if key not in _known:
        _known[key] = Geometry(config)
    return _known[key]


class Geometry:
    """The layouts of one model's pictures, found by the library's own family on a model without weights.

    Attributes:
        family: the family's facts.
        encoder: the parts of the encoder; only its indices mean anything here.
    """

    def __init__(self, config: Any) -> None:
        """Reads a transformers configuration.

        Raises:
            UnsupportedModelError: a model of no known family, or an encoder its family does not know.
        """
        self.family = family_for(config.model_type, _name(config))
        self._model = meta_model(config)
        self.encoder = self.family.parts(self._model)
        self.layout = lru_cache(maxsize=1024)(self._layout)

    @cached_property
    def largest_size(self) -> Size:
        """(width, height) of a picture with the most partitions, and of those one with the most visual tokens."""
        grids = self._grids()
        most = max(rows * columns for rows, columns in grids)
        side = int(self._model.config.vision_config.image_size)
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
        config = self._model.config
        side = int(config.vision_config.image_size)
        return [(h // side, w // side) for h, w in getattr(config, "image_grid_pinpoints", None) or [(side, side)]]

    def _layout(self, width: int, height: int) -> Layout:
        """The layout of a picture of this size in pixels, tensors on the CPU; recent ones are remembered."""
        return image_layouts(self._model, [(width, height)])[0]


def _name(config: Any) -> str:
    return str((getattr(config, "architectures", None) or [type(config).__name__])[0])
