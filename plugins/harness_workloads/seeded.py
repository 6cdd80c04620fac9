"""Seeded inputs in declared shapes, for models that come without data."""

from __future__ import annotations

from collections.abc import Mapping

from harness.api import BadModel, Split, SplitName, TensorSpec

ITEMS = 64  # of each split
SEEDS: Mapping[SplitName, int] = {"train": 11, "calibration": 12, "selection": 13, "test": 14}


def seeded_split(inputs: Mapping[str, TensorSpec], name: SplitName, owner: str) -> Split:
    """Return normal floats, and zeros and ones for integers (valid in any vocabulary); other items in each split.

    Constants are ones, and states start at zero.

    Raises:
        BadModel: A dimension beside the batch is free.
    """
    import numpy as np

    generator = np.random.default_rng(SEEDS[name])
    values = {}
    for key, spec in inputs.items():
        rest = [size for at, size in enumerate(spec.shape) if spec.role != "item" or at != spec.axis]
        if spec.role != "item":
            shape = [1 if size is None else size for size in rest]
            values[key] = np.full(shape, spec.role == "constant", spec.dtype)
            continue
        if None in rest:
            told = f"input {key!r} of {owner} has a free dimension beside the batch"
            raise BadModel(told, hint="give data: --data d.npz")
        shape = [ITEMS, *(size for size in rest if size is not None)]
        if np.dtype(spec.dtype).kind == "f":
            values[key] = generator.standard_normal(shape, dtype=np.float32).astype(spec.dtype)
        else:
            values[key] = generator.integers(0, 2, shape).astype(spec.dtype)
    return Split(values)
