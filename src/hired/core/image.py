"""One image as a method sees it."""

from dataclasses import dataclass

from torch import Tensor

from hired.core.budget import Newlines
from hired.core.layout import Layout

ATTENTION = ("first", "last", "middle", "received", "keys")
"""What a method may read in the encoder's attention: the fields of `Attention`."""
OTHERS = ("states", "features", "question", "pixels")
"""What else it may read: fields of `Image`."""
READINGS = ATTENTION + OTHERS


@dataclass(frozen=True)
class Attention:
    """Attention of one image, float32, None where the method asked for none.

    Attributes:
        first: (heads, N) of the full image in the initial layer: the CLS token's row over the N tokens of a partition;
            in encoders without one, what each token receives.
        last: (P, heads, N) likewise, of every partition in the layer whose output the model uses; filled up behind the
            end where partitions have unlike many tokens.
        middle: (P, heads, N) what each token receives, averaged over all queries, in a layer half-way.
        received: (P, heads, N) the same in the layer whose output the model uses.
        keys: (P, heads, d, N) the keys of that layer; None also in families where a token is not one encoder output.
    """

    first: Tensor | None = None
    last: Tensor | None = None
    middle: Tensor | None = None
    received: Tensor | None = None
    keys: Tensor | None = None


@dataclass(frozen=True)
class Image:
    """One image to select tokens of.

    Attributes:
        layout: where its tokens come from, on the device where the result is wanted.
        attention: the rows the method asked for.
        total: tokens to keep, fewer than `layout.tokens_full`.
        newlines: what becomes of row-end newlines.
        shares: (P,) int64 on the CPU, tokens of each partition, where the method told them before (`Method.shares`).
        states: (T, d) what the encoder made of each token, in front of the projector; in families where a token is not
            one encoder output, `features`. None where not asked for, as all below.
        features: (T, hidden) what the LLM would see of each token.
        question: (Q, hidden) the LLM's embeddings of the text of this image's prompt: of what follows its last picture,
            or of all text where nothing does.
        pixels: (P, channels, height, width) the partitions as the encoder got them; None also in families whose encoder
            takes something else.
    """

    layout: Layout
    attention: Attention
    total: int
    newlines: Newlines
    shares: Tensor | None = None
    states: Tensor | None = None
    features: Tensor | None = None
    question: Tensor | None = None
    pixels: Tensor | None = None
