"""When the host waits for the device before or inside of an encoder's run: where that saves more than it costs."""

import torch

BUSY = 8_192
"""Tokens of the encoder from which a GPU sets the pace, and not the host that starts its kernels.

An H200 takes 9 ms for CLIP-L on one to five partitions (577 to 2,885 tokens), which is what it takes to start the
kernels, 12 ms for 10, and 1 ms for each further one: the untouched rows of docs/speed.md.
"""

FEW = 16
"""Tokens a partition, of the budget, below which one may well keep none."""


def worth_waiting(device: torch.device, tokens: int) -> bool:
    """Whether the encoder is left fewer tokens at the price of a wait. On a CPU nothing is waited for.

    Args:
        device: of the encoder.
        tokens: that go into it.
    """
    return device.type == "cpu" or tokens >= BUSY


def may_be_empty(device: torch.device, kept: int, partitions: int) -> bool:
    """Whether it is worth a wait to see if a partition keeps nothing.

    Args:
        device: of the encoder.
        kept: tokens that are kept of all partitions.
        partitions: how many there are.
    """
    return device.type == "cpu" or kept < FEW * partitions
