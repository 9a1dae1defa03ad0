"""What a method is: a small class that says which attention it reads and which tokens it keeps."""

from typing import ClassVar, Protocol

from torch import Tensor

from hired.core.image import Image
from hired.core.layout import Layout


class Method(Protocol):
    """A way of choosing tokens. `reads_first` and `reads_last` say which attention rows it needs.

    A method that knows from the initial layer how many tokens each partition keeps may also have
    `shares(image) -> Tensor`, (P,) int64 on the CPU: then the encoder does not finish partitions without a share, and
    can be given a budget of its own. It is given the first rows and the layout on the CPU. `select` finds what it
    returned in `image.shares`.
    """

    name: ClassVar[str]
    reads_first: ClassVar[bool]
    reads_last: ClassVar[bool]

    def select(self, image: Image) -> Tensor:
        """Sorted (K,) int64 indices of the kept tokens, among the image's `layout.tokens_full`."""
        ...


def token_scores(rows: Tensor, layout: Layout) -> Tensor:
    """Importance of every token of the layout: (P, heads, N) attention rows summed over heads, (T,) float32.

    The value at `STRUCTURE` tokens means nothing.
    """
    return layout.of_tokens(rows.float().sum(1))
