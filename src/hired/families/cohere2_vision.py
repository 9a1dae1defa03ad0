"""Command A Vision: SigLIP tiles, each with a line break behind it, and a thumbnail; pixel shuffle, a gated MLP."""

from typing import Any, ClassVar

from torch import Tensor

from hired.families.base import Encoder, Size, core_model, unwrapped
from hired.families.shuffled_siglip import ShuffledSiglip, merge_of
from hired.families.tiles import Run


class Cohere2Vision(ShuffledSiglip):
    """Facts: `transformers.models.cohere2_vision`."""

    name: ClassVar[str] = "Command A Vision"
    model_types: ClassVar[tuple[str, ...]] = ("cohere2_vision",)
    classes: ClassVar[str] = "Cohere2VisionForConditionalGeneration"
    encoder: ClassVar[str] = "SigLIP, no CLS token: attention received, pooled over 2 x 2 patches"
    partitions: ClassVar[str] = "thumbnail + r x c tiles"
    tokens: ClassVar[str] = "256 a tile at 512 px, a line break behind each tile"
    verified: ClassVar[str] = "random tiny models; real weights not tried"

    def parts(self, model: Any) -> Encoder:
        """The SigLIP tower's parts; the model takes its last layer."""
        merge = merge_of(model)[0]
        tower = unwrapped(core_model(model).vision_tower)
        layers = tower.encoder.layers
        return Encoder(tower=tower, layers=layers, states=(len(layers),), cls=None, merge=merge)

    def ends(self, ids: Tensor, runs: list[Run]) -> list[bool]:
        """Tiles of one picture have just the line break between them."""
        following = [*runs[1:], None]
        return [
            other is None or other.row != run.row or other.start != run.end + 1
            for run, other in zip(runs, following, strict=True)
        ]

    def canvas(self, size: Size, side: int, tiles: int) -> tuple[int, int]:
        """The grid of at most that many tiles that needs the least scaling."""
        # Imported here because it needs torchvision, which the processor, and so the caller, has.
        from transformers.models.cohere2_vision.image_processing_cohere2_vision import get_optimal_tiled_canvas

        found: tuple[int, int] = get_optimal_tiled_canvas(size[::-1], (side, side), 1, tiles)
        return found
