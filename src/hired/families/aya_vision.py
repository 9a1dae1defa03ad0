"""Aya Vision: SigLIP tiles, each with a tag in front, and the full image behind them; pixel shuffle, a gated MLP."""

from typing import Any, ClassVar

from torch import Tensor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from hired.errors import InputsError
from hired.families.base import Encoder, Size
from hired.families.shuffled_siglip import ShuffledSiglip, merge_of
from hired.families.squares import tower_parts
from hired.families.tiles import Run


class AyaVision(ShuffledSiglip):
    """Facts: `transformers.models.aya_vision`; its processor cuts with GotOcr2's rule."""

    name: ClassVar[str] = "Aya Vision"
    model_types: ClassVar[tuple[str, ...]] = ("aya_vision",)
    classes: ClassVar[str] = "AyaVisionForConditionalGeneration"
    encoder: ClassVar[str] = "SigLIP, no CLS token: attention received, pooled over 2 x 2 patches"
    partitions: ClassVar[str] = "full image + r x c tiles"
    tokens: ClassVar[str] = "169 a tile at 364 px, a tag before each tile"
    verified: ClassVar[str] = "a small trained model and random tiny models; real weights not tried"

    def parts(self, model: Any) -> Encoder:
        """The SigLIP tower's parts."""
        return tower_parts(model, merge=merge_of(model)[0])

    def ends(self, ids: Tensor, runs: list[Run]) -> list[bool]:
        """The token behind the last run of all ends a picture; so do its likes. Between tiles stand their tags."""
        last = runs[-1]
        if last.end >= ids.shape[1]:
            raise InputsError("the last picture's end is missing in input_ids: do not truncate the prompt")
        end = ids[last.row, last.end]
        behind = ids[[run.row for run in runs], [min(run.end, ids.shape[1] - 1) for run in runs]]
        return list((behind == end).tolist())

    def canvas(self, size: Size, side: int, tiles: int) -> tuple[int, int]:
        """The grid of that many tiles whose proportions are closest to the picture's."""
        found: tuple[int, int] = get_optimal_tiled_canvas(size[::-1], (side, side), tiles, tiles)
        return found
