"""What the Qwen-VL families share: pictures at their own resolution in one sequence, and M-RoPE positions.

A visual token's position tells its row and column, so that kept tokens must keep theirs. Positions are laid out before
pictures are encoded, and which rows and columns are kept is known only afterwards. So a picture's placeholders all get
the position of its upper left corner, and each kept embedding carries its own row and column behind its features, in
`CHANNELS` further channels. vLLM caches them and cuts them into chunks with the rest; they come off where embeddings
are put among those of the text, and are added to the positions of that step.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hired.core.layout import Layout
from hired.vllm.models import Pruned
from hired.vllm.processing import PrunedInfo
from hired.vllm.starting import StartError, started

BASE = 128
"""Rows and columns are written as two digits: every dtype down to bfloat16 tells whole numbers up to 256 apart."""

CHANNELS = 4
"""Digits of row and column."""


def written(layout: Layout, rows: Tensor | None) -> Tensor:
    """(K, `CHANNELS`) int64: row and column of the tokens `rows` (None: all) of a picture, in digits."""
    cells = layout.cell if rows is None else layout.cell[rows]
    places = torch.stack((cells // layout.cells[1], cells % layout.cells[1]), 1)
    return torch.stack((places // BASE, places % BASE), 2).flatten(1)


def read(digits: Tensor) -> Tensor:
    """(2, K) int64: the rows and columns that `written` wrote, from their (K, `CHANNELS`) digits of any dtype."""
    pairs = digits.to(torch.int64).view(-1, 2, 2)
    places: Tensor = pairs[..., 0] * BASE + pairs[..., 1]
    return places.T


def base_positions(length: int, pictures: Sequence[tuple[int, int, int]]) -> tuple[Tensor, int]:
    """Positions of a prompt whose pictures all stand at their upper left corner.

    Args:
        length: tokens of the prompt.
        pictures: (offset, placeholders, extent) of each in order; the extent is the greater of its rows and columns.

    Returns:
        ((3, length) int64, what is to be added to a token's place behind the prompt for its position).
    """
    steps = torch.ones(length + 1, dtype=torch.int64)
    steps[0] = 0
    for offset, count, extent in pictures:
        steps[offset + 1 : offset + count] = 0
        steps[offset + count] = extent
    positions = steps.cumsum(0)
    return positions[:-1].repeat(3, 1), int(positions[-1]) - length


class QwenInfo(PrunedInfo):
    """Put before a processing info of vLLM's Qwen-VL kind."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Pictures only. Videos are named, as vLLM's own processors look them up."""
        return {"image": None, "video": 0}

    def shown(self, data: Mapping[str, Any], layouts: Sequence[Layout]) -> bool:
        """By the grids of patches."""
        merge = int(self.ctx.get_hf_config().vision_config.spatial_merge_size)
        grids = [[1, layout.cells[0] * merge, layout.cells[1] * merge] for layout in layouts]
        found: bool = data["image_grid_thw"].tolist() == grids
        return found


class Qwen(Pruned):
    """Put before a model class of vLLM's Qwen-VL kind.

    Attributes:
        hired_places: (3, tokens of a step) int64, what `embed_input_ids` has for `forward` to add; else 0.
    """

    visual: Any
    hired_places: Tensor
    attends: ClassVar[str] = "attn"

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        """Builds the model, and a place for the rows and columns of one step's tokens.

        Raises:
            StartError: as `Pruned`, and a set-up in which positions would go wrong.
        """
        if started(vllm_config.model_config) is not None:
            _check(vllm_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if self.pruned is not None:
            most = vllm_config.scheduler_config.max_num_batched_tokens + 1  # vLLM's own positions have one more
            places = torch.zeros(3, most, dtype=torch.int64, device=self.device())
            self.register_buffer("hired_places", places, persistent=False)  # type: ignore[attr-defined]

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Of text as ever; of a picture's placeholders, those of its upper left corner."""
        if self.pruned is None:
            return super().get_mrope_input_positions(input_tokens, mm_features)  # type: ignore[misc,no-any-return]
        merge, pictures = int(self.config.vision_config.spatial_merge_size), []
        for feature in sorted(mm_features, key=lambda each: each.mm_position.offset):
            extent = int(feature.data["image_grid_thw"].data.max()) // merge
            pictures.append((feature.mm_position.offset, feature.mm_position.length, extent))
        return base_positions(len(input_tokens), pictures)

    def embed_input_ids(
        self, input_ids: Tensor, multimodal_embeddings: Any = None, *, is_multimodal: Tensor | None = None
    ) -> Tensor:
        """Text and pictures among each other; rows and columns are put aside for `forward`."""
        if self.pruned is not None and multimodal_embeddings is not None and len(multimodal_embeddings):
            digits = torch.cat([each[:, -CHANNELS:] for each in multimodal_embeddings])
            multimodal_embeddings = [each[:, :-CHANNELS] for each in multimodal_embeddings]
            places = self.hired_places[1:, : len(input_ids)]
            places.zero_()
            places[:, is_multimodal] = read(digits)
        found: Tensor = super().embed_input_ids(  # type: ignore[misc]
            input_ids, multimodal_embeddings, is_multimodal=is_multimodal
        )
        return found

    def forward(self, input_ids: Tensor | None, positions: Tensor, *args: Any, **kwargs: Any) -> Any:
        """With the rows and columns of this step's pictures in the positions."""
        if self.pruned is None:
            return super().forward(input_ids, positions, *args, **kwargs)  # type: ignore[misc]
        # In place: graphs captured by vLLM read positions where they stood at the capture.
        places = self.hired_places[:, : positions.shape[-1]].add_(positions)
        found = super().forward(input_ids, places, *args, **kwargs)  # type: ignore[misc]
        places.zero_()
        return found

    def encoder_layers(self) -> Sequence[nn.Module]:
        """The tower's."""
        layers: Sequence[nn.Module] = self.visual.blocks
        return layers

    def by_picture(self, pixels: Any, layouts: Sequence[Layout]) -> list[Tensor]:
        """Each picture's own patches."""
        unit = int(self.visual.spatial_merge_size) ** 2
        return list(torch.split(pixels, [layout.tokens_full * unit for layout in layouts]))

    def encode(self, pixels: Tensor, layouts: Sequence[Layout]) -> Tensor:
        """(tokens of all pictures, width): what the tower gives, behind its merger."""
        merge = int(self.visual.spatial_merge_size)
        grids = [[1, layout.cells[0] * merge, layout.cells[1] * merge] for layout in layouts]
        found: Tensor = self.visual(pixels, grid_thw=grids)
        return found

    def features(self, states: Tensor, layouts: Sequence[Layout]) -> list[Tensor]:
        """The tower's output, by picture."""
        return list(torch.split(states, [layout.tokens_full for layout in layouts]))

    def labelled(self, tokens: Tensor, layout: Layout, rows: Tensor | None) -> Tensor:
        """Row and column behind the features."""
        return torch.cat((tokens, written(layout, rows).to(tokens)), 1)


def _check(vllm_config: Any) -> None:
    """Refuses what else changes or cuts up a step's positions."""
    if vllm_config.parallel_config.use_ubatching:
        raise StartError(
            "micro-batches are not supported for this model with a budget, as its positions are made for a whole step:"
            " leave out --enable-dbo and --ubatch-size"
        )
    if vllm_config.model_config.multimodal_config.is_multimodal_pruning_enabled():
        raise StartError("videos are not served with a budget, nor pruned: leave out --video-pruning-rate")
