"""Random inputs of one partition, drawn the same wherever they are drawn.

The golden outputs of the token-pruning methods (tests/data/golden/methods.npz) were printed for these inputs; only
outputs are stored, so a draw must never change. Everything is computed in float64 and rounded to float32 once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

HEADS = 4
HEAD_DIM = 80
FEATURES = HEADS * HEAD_DIM  # one method reads features and unsplit keys with one width
TEXTS = 2
WORDS = 20
EMBED = 48
CLUSTERS = 12


@dataclass(frozen=True)
class Partition:
    """What a vision encoder gives for one partition of N patches; row 0 of N + 1 rows is the CLS token.

    Attributes:
        attention: (heads, N + 1, N + 1) softmax over keys, of the layer whose features are read.
        middle: (heads, N + 1, N + 1) attention of a middle layer.
        features: (N + 1, features) hidden states.
        projected: (N, features) what the projector would make of the patches; drawn, not computed.
        keys: (heads, N + 1, head_dim) key states of the layer of `attention`.
        queries_last: (N + 1, heads * head_dim) output of the last layer's query projection, heads not split.
        keys_last: (N + 1, heads * head_dim) the same of its key projection.
        image_embeds: (N, embed) patches in the space shared with the text.
        text_embeds: (texts, embed).
        word_embeds: (texts, words, embed) every position of each text.
    """

    attention: Array
    middle: Array
    features: Array
    projected: Array
    keys: Array
    queries_last: Array
    keys_last: Array
    image_embeds: Array
    text_embeds: Array
    word_embeds: Array


def _softmax(logits: NDArray[np.float64]) -> Array:
    shifted: NDArray[np.float64] = np.exp(logits - logits.max(-1, keepdims=True))
    weights: Array = (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)
    return weights


def draw(seed: int, patches: int) -> Partition:
    """The partition numbered `seed` of that many patches."""
    rng = np.random.default_rng([seed, patches])
    rows = patches + 1
    labels = rng.integers(0, CLUSTERS, rows)

    def clustered(width: int, noise: float) -> NDArray[np.float64]:
        """Rows around shared centres, so that similarities between patches differ much."""
        centres = rng.standard_normal((CLUSTERS, width))
        return np.asarray(centres[labels] + noise * rng.standard_normal((rows, width)))

    attention = _softmax(1.5 * rng.standard_normal((HEADS, rows, rows)))
    middle = _softmax(1.5 * rng.standard_normal((HEADS, rows, rows)))
    features = clustered(FEATURES, 1.0).astype(np.float32)
    projected = clustered(FEATURES, 1.0)[1:].astype(np.float32)
    keys = np.stack([clustered(HEAD_DIM, 1.0) for _ in range(HEADS)]).astype(np.float32)
    queries_last = (0.12 * clustered(FEATURES, 1.0)).astype(np.float32)
    keys_last = clustered(FEATURES, 1.0).astype(np.float32)
    image_embeds = clustered(EMBED, 1.0)[1:].astype(np.float32)
    text_embeds = rng.standard_normal((TEXTS, EMBED)).astype(np.float32)
    word_embeds = rng.standard_normal((TEXTS, WORDS, EMBED)).astype(np.float32)
    return Partition(
        attention=attention,
        middle=middle,
        features=features,
        projected=projected,
        keys=keys,
        queries_last=queries_last,
        keys_last=keys_last,
        image_embeds=image_embeds,
        text_embeds=text_embeds,
        word_embeds=word_embeds,
    )


def draw_logits(seed: int, patches: int, partitions: int) -> Array:
    """(partitions, N) CLS row of the last layer before softmax, averaged over heads."""
    return np.random.default_rng([seed, patches, partitions]).standard_normal((partitions, patches)).astype(np.float32)


def draw_picture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width) grey picture: noise whose strength grows from its top left to its bottom right corner."""
    strength = np.add.outer(np.linspace(0, 1, height), np.linspace(0, 1, width))
    noise = np.random.default_rng([seed, height, width]).standard_normal((height, width))
    return np.clip(128 + 40 * strength * noise, 0, 255).astype(np.uint8)


LAYERS = 24


@dataclass(frozen=True)
class Flow:
    """What a method that drops tokens between an encoder's layers reads in them; entry 0 of N + 1 is the CLS token.

    Attributes:
        logits: (layers, heads, N + 1) CLS row of attention before softmax.
        semantic: (layers, heads, N + 1) products of the CLS token's values with every token's, before softmax.
        values: (layers, N + 1, head_dim) values averaged over heads.
    """

    logits: Array
    semantic: Array
    values: Array


def draw_flow(seed: int, patches: int) -> Flow:
    """The encoder numbered `seed`; attention sharpens from layer to layer."""
    rng = np.random.default_rng([seed, patches, LAYERS])
    sharpness = np.linspace(0.5, 3.0, LAYERS)[:, None, None]
    logits = (sharpness * rng.standard_normal((LAYERS, HEADS, patches + 1))).astype(np.float32)
    semantic = rng.standard_normal((LAYERS, HEADS, patches + 1)).astype(np.float32)
    values = rng.standard_normal((LAYERS, patches + 1, HEAD_DIM)).astype(np.float32)
    return Flow(logits=logits, semantic=semantic, values=values)
