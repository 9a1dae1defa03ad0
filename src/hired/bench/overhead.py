"""What choosing costs: its own arithmetic, timed on tensors of the encoder's shapes.

Two runs of the encoder, with it and without, differ by less than either varies, so they would tell nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hired.bench.subject import Subject
from hired.core.image import Attention, Image
from hired.core.transfer import moved_to
from hired.encoding.distinct import distinct
from hired.encoding.taps import Tap
from hired.encoding.waiting import worth_waiting
from hired.methods.base import told_early
from hired.reduction import Plan

__all__ = ["Choosing", "choosing"]

REPEATS = 20


@dataclass(frozen=True)
class Choosing:
    """Median seconds for one picture.

    Attributes:
        inside: what choosing adds to the encoder: both taps, the division of the budget, and the look for identical
            partitions.
        alone: choosing by itself: both taps, the division, and the selection.
    """

    inside: float
    alone: float


@torch.inference_mode()
def choosing(subject: Subject, made: Plan) -> Choosing | None:
    """What choosing costs, timed apart; None where nothing is chosen from attention.

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
    full = moved_to(subject.device, subject.family.full_images(made.layouts))
    pixels = subject.family.pixels(made.inputs, made.layouts)
    divide = getattr(made.method, "shares", None) if told_early(made.method, subject.device) else None
    tokens = layout.partitions * layout.cells_per_partition

    def drawn() -> Tensor:  # (partitions, heads, sequence, d), in memory as attention modules have it
        shape = (len(pixels), sequence, heads, int(vision.hidden_size) // heads)
        return torch.randn(shape, device=subject.device, dtype=subject.model.dtype).transpose(1, 2)

    def read(query: Tensor, key: Tensor) -> Image:
        first, last = Tap(encoder.tower, encoder.cls, full), Tap(encoder.tower, encoder.cls)
        first.read(query, key, None, None)
        last.read(query, key, None, None)
        attention = Attention(encoder.scores(first.rows[0])[0], encoder.scores(last.rows[0]))
        image = Image(layout, attention, total, made.newlines)
        return image if divide is None else replace(image, shares=divide(image))

    def inside(query: Tensor, key: Tensor) -> None:
        if worth_waiting(subject.device, tokens):
            distinct(pixels)
        read(query, key)

    def alone(query: Tensor, key: Tensor) -> None:
        made.method.select(read(query, key))

    def seconds(run: Callable[[Tensor, Tensor], None]) -> float:
        spent = []
        for _ in range(REPEATS):
            query, key = drawn(), drawn()  # new ones, so that they are no more at hand than in the encoder
            subject.synchronize()
            start = time.perf_counter()
            run(query, key)
            subject.synchronize()
            spent.append(time.perf_counter() - start)
        return statistics.median(spent)

    return Choosing(seconds(inside), seconds(alone))
