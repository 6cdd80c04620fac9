"""Inputs of a session, made from the evaluation items before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import HarnessError
from harness.feeds import feed, items_in, shard_name
from harness.measure import cpus
from harness.measure.order import generator
from harness.types import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LEAST_DISTINCT = 8
CACHE_BYTES = 64 * 2**20  # assumed last-level cache where the kernel does not tell its size


def open_items(folder: Path, specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """Map the array of every input into memory, read-only.

    Args:
        folder: Of the evaluation data.
        specs: The inputs, with their roles.

    Raises:
        HarnessError: A file is missing, or the item inputs have unequal numbers of items, or none.
    """
    arrays: dict[str, Array] = {}
    for name in specs:
        file = folder / shard_name(name)
        if not file.is_file():
            raise HarnessError(f"the session takes input {name!r}, the evaluation data has no {file.name}")
        arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
    counts = items_in(specs, arrays)
    if len(set(counts.values())) > 1:
        raise HarnessError("the inputs have unequal numbers of items")
    if not any(counts.values()):
        raise HarnessError("the evaluation data holds no item")
    return arrays


def count_items(specs: Mapping[str, TensorSpec], arrays: Mapping[str, Array]) -> int:
    """Return the number of items of what ``open_items`` opened."""
    return next(iter(items_in(specs, arrays).values()))


def batch_of(specs: Mapping[str, TensorSpec], wanted: int) -> int:
    """Return the batch that a session really takes: ``wanted`` where it is dynamic, else its own.

    Raises:
        HarnessError: The inputs are fixed to different batches.
    """
    axes = ((spec.shape, spec.axis) for spec in specs.values())
    sizes = (shape[axis] for shape, axis in axes if axis is not None and len(shape) > axis)
    fixed = {size for size in sizes if size is not None}
    if any(spec.role == "item" and spec.axis is None for spec in specs.values()):
        fixed |= {1}
    if len(fixed) > 1:
        raise HarnessError(f"the session's inputs have different fixed batches {sorted(fixed)}")
    return fixed.pop() if fixed else wanted


def take(items: Mapping[str, Array], specs: Mapping[str, TensorSpec], which: Sequence[int]) -> dict[str, Array]:
    """Copy the items ``which`` into contiguous arrays of the dtype that the session takes."""
    return feed(specs, items, which)


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
    items = open_items(folder, specs)
    total = count_items(specs, items)
    order = generator(seed, "inputs").sample(range(total), total)
    size = sum(array.nbytes for array in take(items, specs, [0]).values()) * batch
    enough = 2 * (cpus.last_level_cache_bytes() or CACHE_BYTES)
    count = max(min(distinct, -(-enough // max(size, 1))), min(LEAST_DISTINCT, distinct))
    starts = range(0, count * batch, batch)
    return [take(items, specs, [order[(start + step) % total] for step in range(batch)]) for start in starts]
