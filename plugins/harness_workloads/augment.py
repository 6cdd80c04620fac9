"""Augmentations of training batches, drawn from the generator that they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def shifted(pixels: int) -> Callable[[tuple[Any, ...], Any], tuple[Any, ...]]:
    """Return an augmentation that moves each image [n, c, h, w] by up to ``pixels`` along both axes.

    What moves in takes the value of the nearest edge.
    """

    def shift(inputs: tuple[Any, ...], generator: Any) -> tuple[Any, ...]:
        return tuple(_shift(value, pixels, generator) for value in inputs)

    return shift


def _shift(images: Any, pixels: int, generator: Any) -> Any:
    import torch
    from torch.nn import functional

    count, channels, height, width = images.shape
    padded = functional.pad(images, (pixels,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator)
    rows = offsets[0, :, None] + torch.arange(height)
    columns = offsets[1, :, None] + torch.arange(width)
    items, every = torch.arange(count)[:, None, None, None], torch.arange(channels)[None, :, None, None]
    return padded[items, every, rows[:, None, :, None], columns[:, None, None, :]]
