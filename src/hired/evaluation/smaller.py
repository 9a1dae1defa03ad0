"""The baseline that needs no method: a smaller picture, whole, with as many tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hired.reduction import Plan

__all__ = ["cells", "encode", "inputs"]

_BEND = 1.1
"""How far the shrunk picture's shape may be from the picture's, as a factor, to use more of the tokens."""


def cells(size: tuple[int, int], tokens: int) -> tuple[int, int]:
    """(rows, columns) of patches of the largest picture of about the same shape with at most `tokens`.

    Args:
        size: (width, height) of the picture.
        tokens: Patches allowed, at least 1.
    """
    width, height = size
    shape = height / width

    def bend(rows: int, columns: int) -> float:
        """How far the shape is from the picture's, as a factor of at least 1."""
        ratio = rows / columns / shape
        return max(ratio, 1 / ratio)

    best = (1, 1)
    for n in range(1, tokens + 1):
        across, down = n / shape, n * shape
        exact = {(n, max(1, round(across))), (max(1, round(down)), n)}
        near = {(n, math.floor(across)), (n, math.ceil(across)), (math.floor(down), n), (math.ceil(down), n)}
        for rows, columns in exact | {pair for pair in near if min(pair) > 0 and bend(*pair) <= _BEND}:
            count, most = rows * columns, best[0] * best[1]
            if count <= tokens and (count, -bend(rows, columns)) > (most, -bend(*best)):
                best = rows, columns
    return best


def encode(model: Any, processor: Any, image: Image.Image, tokens: int) -> Tensor:
    """Features (K, hidden) of the whole picture as one partition of at most `tokens` patches.

    The picture is shrunk (or grown) to whole patches, normalised as the image processor does, and encoded
    with interpolated position embeddings.
    """
    patch = int(model.config.vision_config.patch_size)
    rows, columns = cells(image.size, tokens)
    resized = image.resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
    settings = processor.image_processor
    mean, deviation = (np.array(v, dtype=np.float32) for v in (settings.image_mean, settings.image_std))
    values = (np.asarray(resized, dtype=np.float32) * settings.rescale_factor - mean) / deviation
    tower = model.model.vision_tower
    weight = next(tower.parameters())
    pixels = torch.from_numpy(values).permute(2, 0, 1)[None].to(weight.device, weight.dtype)
    states = tower(pixels, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states
    used = model.config.vision_feature_layer
    layers = [used] if isinstance(used, int) else list(used)
    features = torch.cat([states[layer][:, 1:] for layer in layers], dim=-1)
    projected: Tensor = model.model.multi_modal_projector(features)[0]
    return projected


def inputs(plan: Plan, features: Sequence[Tensor], pad: int) -> dict[str, Any]:
    """What `generate` takes: the plan's prompts with as many placeholders as each picture has features.

    Args:
        plan: A plan of a batch with one image in every row.
        features: (K, hidden) of each row's image.
        pad: Token id to pad with, on the left.
    """
    ids, mask = plan.inputs["input_ids"], plan.inputs["attention_mask"]
    token = plan.family.image_token(plan.model)
    rows = []
    for prompt, real, feature in zip(ids, mask, features, strict=True):
        words = prompt[real.bool()]
        places = (words == token).nonzero().flatten()
        images = words.new_full((feature.shape[0],), token)
        rows.append(torch.cat([words[: places[0]], images, words[places[-1] + 1 :]]))
    length = max(row.numel() for row in rows)
    padded = ids.new_full((len(rows), length), pad)
    attended = torch.zeros_like(padded)
    for i, row in enumerate(rows):
        padded[i, length - row.numel() :] = row
        attended[i, length - row.numel() :] = 1
    return {
        "input_ids": padded,
        "attention_mask": attended,
        "mm_encoder_outputs": {"image": plan.family.container(list(features))},
    }
