"""What the second stage hands on."""

from dataclasses import dataclass

from torch import Tensor

from hired.core.image import Attention
from hired.encoding.run import Patches


@dataclass(frozen=True)
class Encoded:
    """What the vision encoder gave: `features` or `patches`, or both; neither where nothing is dropped.

    Attributes:
        attention: one entry an image; empty entries where the method reads none.
        features: one (T, hidden) tensor an image, as the untouched model would hand it to its LLM.
        patches: encoder outputs that are still to be projected, for the partitions and patches that may be kept.
        shares: (P,) int64 on the CPU, tokens of each partition for every image; None where the method has not told
            them.
        states: (partitions of all images, N, d) encoder outputs, where they were asked for and there are no `patches`.
        pixels: one (P, channels, height, width) tensor an image, where they were asked for and are such.
    """

    attention: list[Attention]
    features: list[Tensor] | None = None
    patches: Patches | None = None
    shares: list[Tensor | None] | None = None
    states: Tensor | None = None
    pixels: list[Tensor] | None = None

    def of(self, partition: Tensor, cell: Tensor) -> Tensor:
        """Encoder outputs of K patches, (K, d), by their partition among those of all images and their cell.

        Some output where these are negative.

        Raises:
            RuntimeError: they were neither left to be projected nor asked for.
        """
        held = self.states if self.patches is None else self.patches.states[0]
        if held is None:
            raise RuntimeError("the method reads encoder outputs; the encoder stage kept none")
        partition, cell = partition.to(held.device), cell.to(held.device)
        return held[partition, cell] if self.patches is None else self.patches.of(partition, cell)
