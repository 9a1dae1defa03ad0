"""What choosing costs inside of the encoder stage: its own arithmetic, timed on tensors of the encoder's shapes.

Two runs of the encoder, with it and without, differ by less than either varies, so they would tell nothing.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from hired.bench.subject import Subject
from hired.core.image import Attention, Image
from hired.encoding.distinct import distinct
from hired.encoding.taps import Tap
from hired.reduction import Plan

__all__ = ["choosing_seconds"]

REPEATS = 5


@torch.inference_mode()
def choosing_seconds(subject: Subject, made: Plan) -> float | None:
    """Median seconds spent on choosing while the encoder of one picture runs; None where nothing is chosen.

    Both taps, the division of the budget, and the look for identical partitions.

    Args:
        subject: the model.
        made: the plan of one picture.
    """
    encoder, layout, total = made.encoder, made.placed[0] if made.placed else None, made.totals[0]
    if encoder is None or layout is None or total is None:
        return None
    vision = subject.model.config.vision_config
    heads = int(vision.num_attention_heads)
    sequence = (int(vision.image_size) // int(vision.patch_size)) ** 2 + 1
    full = subject.family.full_images(made.layouts).to(subject.device)
    pixels = subject.family.pixels(made.inputs, made.layouts)
    shares = getattr(made.method, "shares", None)

    def drawn() -> Any:  # (partitions, heads, sequence, d), in memory as attention modules have it
        shape = (len(pixels), sequence, heads, int(vision.hidden_size) // heads)
        return torch.randn(shape, device=subject.device, dtype=subject.model.dtype).transpose(1, 2)

    spent = []
    for _ in range(REPEATS):
        query, key = drawn(), drawn()  # new ones, so that they are no more at hand than in the encoder
        first, last = Tap(encoder.tower, encoder.cls, full), Tap(encoder.tower, encoder.cls)
        subject.synchronize()
        start = time.perf_counter()
        distinct(pixels)
        first.read(query, key, None, None)
        last.read(query, key, None, None)
        if shares is not None:
            shares(Image(layout, Attention(first.rows[0][0, :, 1:]), total, made.newlines)).tolist()
        subject.synchronize()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)
