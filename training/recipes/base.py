"""What training must know of a model. A model is one file with one subclass of `Recipe`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from hired.forms import TILE

ROOT = Path(__file__).resolve().parents[2]
PATCH = 8
"""Side of an encoder patch, in tile pixels."""
SIDE = TILE // PATCH
"""Patches along a side of a partition."""
NEWLINE = -2
TEXT = -1


@dataclass(frozen=True)
class View:
    """How a partition shows the page: page pixel (x, y) lies at (x * sx + ox, y * sy + oy).

    Attributes:
        sx, sy: Tile pixels for a page pixel.
        ox, oy: Offset, in tile pixels.
        tile: Whether this is a tile, not the shrunk full image.
    """

    sx: float
    sy: float
    ox: float
    oy: float
    tile: bool


class Recipe:
    """Facts of one model that is trained here.

    Attributes:
        name: What `--model` takes.
        weights: Where the trained model is written.
        record: Where its training record is written.
        model: The transformers class.
        tower: The class of its vision tower alone.
        merge: (tokens, k) the encoder patches that each visual token of a partition is made of.
        layered: Whether the tower has a CLS token, so that `summaries` tells one vector a layer.
    """

    name: ClassVar[str]
    weights: ClassVar[Path]
    record: ClassVar[Path]
    model: ClassVar[Any]
    tower: ClassVar[Any]
    merge: ClassVar[np.ndarray]
    layered: ClassVar[bool]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The model's tokenizer."""
        raise NotImplementedError

    def processor(self) -> Any:
        """The model's processor."""
        raise NotImplementedError

    def config(self, tok: PreTrainedTokenizerFast) -> Any:
        """The model's configuration."""
        raise NotImplementedError

    def cut(self, image: Image.Image) -> np.ndarray:
        """Partitions of a picture, in the encoder's order: (partitions, 96, 96, 3) uint8.

        Equal to what the model's image processor makes before it rescales and normalises.
        """
        raise NotImplementedError

    def views(self, width: int, height: int) -> list[View]:
        """What each of these partitions shows of a picture."""
        raise NotImplementedError

    def picture(self, tok: PreTrainedTokenizerFast, width: int, height: int) -> tuple[list[int], list[int]]:
        """Token ids that stand for a picture, and for each the visual token it is (partition * tokens of a partition
        + token), `NEWLINE` or `TEXT`."""
        raise NotImplementedError

    def patches(self, out: Any) -> Tensor:
        """(n, 144, width) patch features as the LLM will get them, from the tower's output with all hidden states."""
        raise NotImplementedError

    def summaries(self, out: Any) -> list[Tensor]:
        """(n, width) vectors that stand for the whole partition; the last is what the tower was made to give."""
        raise NotImplementedError

    def features(self, tower: nn.Module, pixels: Tensor, block: int = 64) -> Tensor:
        """(n, 144, width) patch features of (n, 96, 96, 3) uint8 pixels, and nothing that they do not need."""
        raise NotImplementedError

    def visual(self, model: Any, patches: Tensor) -> Tensor:
        """(visual tokens, hidden) of `patches`, in the order of `picture`; one more row, the last, for `NEWLINE`."""
        raise NotImplementedError

    def begin(self, module: nn.Module) -> None:
        """Fills a new tower or model with what it can take from the model that ships.

        Raises:
            ValueError: a model that starts from nothing.
        """
        raise ValueError(f"{self.name} starts from random weights")


def normalise(pixels: Tensor) -> Tensor:
    """(n, 96, 96, 3) uint8 -> (n, 3, 96, 96) float in [-1, 1], as the processors do."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def tiles_of(canvas: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows * TILE, columns * TILE, 3) -> (rows * columns, TILE, TILE, 3)."""
    return canvas.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)


def load_matching(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads what `module` has of `state`: a tower's training-only pooling head, for one, is not in the model."""
    own = module.state_dict()
    module.load_state_dict({key: state[key] for key in own})


@torch.no_grad()
def copy_rows(into: Tensor, rows: Tensor, new: dict[str, int], old: dict[str, int]) -> None:
    """Overwrites the rows of a table of tokens with those that another vocabulary has under the same name."""
    for token, row in new.items():
        if token in old:
            into[row] = rows[old[token]]
