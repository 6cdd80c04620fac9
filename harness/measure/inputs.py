"""Inputs of a session, made from the evaluation items before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from harness.errors import HarnessError
from harness.measure import cpus
from harness.measure.order import generator
from harness.types import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LEAST_DISTINCT = 8
CACHE_BYTES = 64 * 2**20  # assumed last-level cache where the kernel does not tell its size


def open_items(folder: Path, names: Sequence[str]) -> dict[str, Array]:
    """Map ``<name>.npy`` of every input into memory, read-only.

    Raises:
        HarnessError: A file is missing, or the inputs have unequal numbers of items.
    """
    arrays: dict[str, Array] = {}
    for name in names:
        file = folder / f"{quote(name, safe='')}.npy"  # a name such as gpu_0/data_0 is one file
        if not file.is_file():
            raise HarnessError(f"the session takes input {name!r}, the evaluation data has no {file.name}")
        arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
    if len({len(array) for array in arrays.values()}) > 1:
        raise HarnessError("the inputs have unequal numbers of items")
    if not arrays or not len(next(iter(arrays.values()))):
        raise HarnessError("the evaluation data holds no item")
    return arrays


def batch_of(specs: Mapping[str, TensorSpec], wanted: int) -> int:
    """Return the batch that a session really takes: ``wanted`` where it is dynamic, else its own."""
    fixed = {spec.shape[0] for spec in specs.values() if spec.shape and spec.shape[0] is not None}
    if len(fixed) > 1:
        raise HarnessError(f"the session's inputs have different fixed batches {sorted(fixed)}")
    return fixed.pop() if fixed else wanted


def take(items: Mapping[str, Array], specs: Mapping[str, TensorSpec], which: Sequence[int]) -> dict[str, Array]:
    """Copy the items ``which`` into contiguous arrays of the dtype that the session takes."""
    index = np.asarray(which)
    return {
        name: np.ascontiguousarray(array[index], dtype=np.dtype(specs[name].dtype)) for name, array in items.items()
    }


def rotation(
    folder: Path, specs: Mapping[str, TensorSpec], *, batch: int, distinct: int, seed: int
) -> list[dict[str, Array]]:
    """Prepare the inputs that a timed loop rotates through: distinct real items in a seeded order.

    Args:
        folder: Of the evaluation items.
        specs: The session's inputs.
        batch: Items per inference.
        seed: Of the order.
        distinct: How many different inputs; fewer where they exceed twice the last-level cache.

    Returns:
        One mapping per inference, each of ``batch`` items.
    """
    items = open_items(folder, list(specs))
    total = len(next(iter(items.values())))
    order = generator(seed, "inputs").sample(range(total), total)
    size = sum(array[0].nbytes for array in items.values()) * batch
    enough = 2 * (cpus.last_level_cache_bytes() or CACHE_BYTES)
    count = max(min(distinct, -(-enough // max(size, 1))), min(LEAST_DISTINCT, distinct))
    starts = range(0, count * batch, batch)
    return [take(items, specs, [order[(start + step) % total] for step in range(batch)]) for start in starts]
