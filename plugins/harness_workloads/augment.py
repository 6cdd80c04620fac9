"""Augmentations of training batches, drawn from the generator that they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.api import Split, SplitName


def shifted(pixels: int) -> Callable[[tuple[Any, ...], Any], tuple[Any, ...]]:
    """Return an augmentation that moves each image [n, c, h, w] by up to ``pixels`` along both axes.

    What moves in takes the value of the nearest edge.
    """

    def shift(inputs: tuple[Any, ...], generator: Any) -> tuple[Any, ...]:
        return tuple(_shift(value, pixels, generator) for value in inputs)

    return shift


def moved(_params: object, inputs: tuple[Any, ...], generator: Any) -> tuple[Any, ...]:
    """Vary a training batch of images: each moves by up to two pixels."""
    return shifted(2)(inputs, generator)


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


def noisy(split: Split, name: SplitName, deviation: float) -> Split:
    """Return the test split with Gaussian noise on its floats, seeded; every other split, and no noise, as it is.

    What is trained, calibrated and selected stays clean: the test asks how a model stands noise that it never saw.

    Args:
        split: Items.
        name: Which split they are.
        deviation: Of the noise, as share of each input's own standard deviation.
    """
    import numpy as np

    if name != "test" or not deviation:
        return split
    generator = np.random.default_rng(0)
    inputs = {
        key: (value + generator.normal(0, deviation * value.std(), value.shape)).astype(value.dtype)
        if np.issubdtype(value.dtype, np.floating)
        else value
        for key, value in split.inputs.items()
    }
    return Split(inputs, split.labels)
